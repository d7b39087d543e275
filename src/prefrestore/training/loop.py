"""The one training loop: seeded steps, EMA, bf16 by autocast, exact resumption, throughput, sample grids.

Everything random in step k is drawn from generators seeded by (seed, k), and a checkpoint holds the trained
parameters, their moving average and the optimiser's moments; so a killed run that resumes sees the same batches and
the same noise, and gives the same losses as one that was never stopped.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from prefrestore.errors import InvalidInputError, MissingDependencyError, WeightsError
from prefrestore.training.progress import progress

Batch = Mapping[str, Any]
Losses = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What every stage's run shares.

    Args:
        output_dir: checkpoints, grids and ``log.jsonl`` go here.
        steps: length of the schedule; the run ends there.
        batch_size: samples a step and process.
        learning_rate: peak; linear warm-up over ``warmup_steps``, then cosine to ``final_lr_ratio`` of it.
        max_minutes: stop (with a checkpoint) after this long, so that a long run can be made of short ones.
        mixed_precision: ``no`` or ``bf16``; parameters and moments stay float32.
        num_workers: processes that prepare batches; 0 prepares them in the loop.
        tracker: who is told the curves beside ``log.jsonl``: ``none``, or one of Accelerate's names.
    """

    output_dir: Path
    steps: int
    batch_size: int
    learning_rate: float
    final_lr_ratio: float = 0.1
    warmup_steps: int = 50
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    ema_decay: float = 0.999
    gradient_clip: float = 1.0
    seed: int = 0
    mixed_precision: str = "no"
    save_every: int = 200
    sample_every: int = 500
    log_every: int = 10
    num_workers: int = 0
    max_minutes: float | None = None
    resume: bool = True
    tracker: str = "none"


class _StepBatches(torch.utils.data.Dataset):
    """Item k is the whole batch of step ``start + k``: worker processes may fetch ahead without changing it."""

    def __init__(self, make_batch: Callable[[int], Batch], start: int, steps: int) -> None:
        self.make_batch, self.start, self.steps = make_batch, start, steps

    def __len__(self) -> int:
        return max(0, self.steps - self.start)

    def __getitem__(self, index: int) -> Batch:
        return self.make_batch(self.start + index)


def step_generator(seed: int, step: int, rank: int = 0, device: str | torch.device = "cpu") -> torch.Generator:
    """The noise source of one step: distinct for every (seed, step, rank), the same at every run."""
    mixed = (seed * 1_000_003 + step) * 4_099 + rank
    return torch.Generator(device).manual_seed(mixed % (2**63))


def new_accelerator(config: LoopConfig) -> Accelerator:
    """Accelerate's view of this process, and its tracker if one is wanted.

    Raises:
        InvalidInputError: no such tracker.
        MissingDependencyError: its package is absent.
    """
    if config.tracker == "none":
        return Accelerator()
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    if config.tracker not in LOGGER_TYPE_TO_CLASS:
        known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
        raise InvalidInputError(f"there is no tracker '{config.tracker}': take none, {known}")
    if config.tracker not in get_available_trackers():
        raise MissingDependencyError(f"the tracker {config.tracker} is not installed; --tracker none does without it")
    accelerator = Accelerator(log_with=config.tracker, project_dir=config.output_dir)
    accelerator.init_trackers("tracker")
    return accelerator


def learning_rate_at(step: int, config: LoopConfig) -> float:
    """Linear warm-up, then half a cosine from the peak to ``final_lr_ratio`` times the peak at ``steps``."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    span = max(1, config.steps - config.warmup_steps)
    progress = min(1.0, (step - config.warmup_steps) / span)
    cosine = 0.5 * (1 + torch.cos(torch.tensor(progress * torch.pi)).item())
    return config.learning_rate * (config.final_lr_ratio + (1 - config.final_lr_ratio) * cosine)


class Trainer:
    """Holds what a run changes: parameters, their moving average, moments and the step.

    Args:
        objective: ``objective(**batch, generator=g)`` returns a dict of scalar losses with the total under ``loss``;
            its parameters with ``requires_grad`` are trained.
        make_batch: step -> keyword tensors for the objective; a pure function of the step.
        config: see `LoopConfig`.
        sample: called every ``sample_every`` steps with the averaged weights in place; returns a grid to save.
        after_step: called with the losses of each step; True ends the run (with a checkpoint).
        extra_tensors: what else a run changes; kept in the checkpoint, and filled in place from it.
        notes: the same for plain numbers and texts: a dictionary of JSON values, updated in place.
    """

    def __init__(
        self,
        objective: nn.Module,
        make_batch: Callable[[int], Batch],
        config: LoopConfig,
        *,
        sample: Callable[[], Image.Image] | None = None,
        after_step: Callable[[dict[str, float]], bool] | None = None,
        extra_tensors: Mapping[str, Tensor] | None = None,
        notes: dict[str, Any] | None = None,
        accelerator: Accelerator | None = None,
    ) -> None:
        if config.steps < 1 or config.batch_size < 1:
            raise InvalidInputError("training needs at least one step and one sample a step")
        if config.mixed_precision not in ("no", "bf16"):
            raise InvalidInputError(f"mixed_precision is no or bf16, not '{config.mixed_precision}'")
        # Precision is the loop's own affair: Accelerate's is one for the whole process, and stages differ in theirs.
        self.accelerator = accelerator or new_accelerator(config)
        self.config, self.make_batch, self.sample, self.after_step = config, make_batch, sample, after_step
        self.extra_tensors, self.notes = dict(extra_tensors or {}), {} if notes is None else notes
        self.trained = {name: p for name, p in objective.named_parameters() if p.requires_grad}
        if not self.trained:
            raise InvalidInputError("the objective has no parameter to train")
        optimizer = torch.optim.AdamW(
            self.trained.values(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self.objective, self.optimizer = self.accelerator.prepare(objective, optimizer)
        self.average = {name: p.detach().clone() for name, p in self.trained.items()}
        self.step = 0
        self.state_file = Path(config.output_dir) / "state.safetensors"
        if config.resume and self.state_file.is_file():
            self.load()

    # One file, written beside and renamed: a kill at any moment leaves the previous checkpoint whole.
    def save(self) -> None:
        """Write the checkpoint."""
        if not self.accelerator.is_main_process:
            return
        tensors = {f"extra.{name}": value.detach() for name, value in self.extra_tensors.items()}
        for name, parameter in self.trained.items():
            tensors[f"model.{name}"] = parameter.detach()
            tensors[f"average.{name}"] = self.average[name]
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        self.state_file.parent.mkdir(parents=True, exist_ok=True)
        beside = self.state_file.with_suffix(".part")
        about = {"step": str(self.step), "notes": json.dumps(self.notes)}
        save_file({key: value.contiguous() for key, value in tensors.items()}, beside, about)
        os.replace(beside, self.state_file)

    def load(self) -> None:
        """Read the checkpoint; WeightsError when it is of another model."""
        with safe_open(self.state_file, "pt") as file:
            self.step = int(file.metadata()["step"])
            self.notes.update(json.loads(file.metadata().get("notes", "{}")))
            keys = set(file.keys())
            wanted = [f"model.{name}" for name in self.trained] + [f"extra.{name}" for name in self.extra_tensors]
            missing = [name for name in wanted if name not in keys]
            if missing:
                more = len(missing) - 1
                raise WeightsError(f"{self.state_file}: this checkpoint has no {missing[0]} (and {more} more)")
            with torch.no_grad():
                for name, value in self.extra_tensors.items():
                    value.copy_(file.get_tensor(f"extra.{name}"))
                for name, parameter in self.trained.items():
                    parameter.copy_(file.get_tensor(f"model.{name}"))
                    self.average[name].copy_(file.get_tensor(f"average.{name}"))
                    moments = {
                        key: file.get_tensor(f"optimizer.{key}.{name}").to(parameter.device if key != "step" else "cpu")
                        for key in ("step", "exp_avg", "exp_avg_sq")
                        if f"optimizer.{key}.{name}" in keys
                    }
                    if moments:
                        self.optimizer.state[parameter] = moments

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Put the moving average in place of the trained parameters for the duration of the block."""
        backup = {name: p.detach().clone() for name, p in self.trained.items()}
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(self.average[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.trained.items():
                    parameter.copy_(backup[name])

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One optimiser step on one batch; returns the losses as floats."""
        config = self.config
        generator = step_generator(config.seed, self.step, self.accelerator.process_index, self.accelerator.device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.step, config)
        moved = {k: v.to(self.accelerator.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        low = config.mixed_precision == "bf16"
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=low):
            losses = self.objective(**moved, generator=generator)
        self.accelerator.backward(losses["loss"])
        norm = self.accelerator.clip_grad_norm_(self.trained.values(), config.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        # The average starts fast and slows down to its decay, or the first weights would linger in short runs.
        decay = min(config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.trained.values()), 1 - decay)
        return {key: float(value.detach()) for key, value in losses.items()} | {"gradient_norm": float(norm)}

    def fit(self) -> list[dict[str, float]]:
        """Train until ``steps`` or ``max_minutes``; returns the losses of each step of this call."""
        config, started, history = self.config, time.monotonic(), []
        loader = torch.utils.data.DataLoader(
            _StepBatches(self.make_batch, self.step, config.steps),
            batch_size=None,
            num_workers=config.num_workers,
        )
        log_file = Path(config.output_dir) / "log.jsonl"
        log_file.parent.mkdir(parents=True, exist_ok=True)
        mark, mark_step = time.monotonic(), self.step
        with progress(config.steps, self.accelerator.is_main_process) as report:
            for batch in loader:
                losses = self.train_step(batch)
                history.append(losses)
                done = self.after_step is not None and self.after_step(losses)
                if self.step % config.log_every == 0 or self.step == config.steps:
                    now = time.monotonic()
                    rate = (self.step - mark_step) * config.batch_size / max(now - mark, 1e-9)
                    mark, mark_step = now, self.step
                    window = history[-config.log_every :]
                    means = {key: sum(row[key] for row in window) / len(window) for key in window[0]}
                    report(self.step, means, rate)
                    self.accelerator.log(means, step=self.step)
                    if self.accelerator.is_main_process:
                        row = {"step": self.step, "samples_per_second": round(rate, 2)} | means
                        with log_file.open("a") as file:
                            file.write(json.dumps(row) + "\n")
                out_of_time = config.max_minutes is not None and time.monotonic() - started > 60 * config.max_minutes
                if self.step % config.save_every == 0 or self.step == config.steps or out_of_time or done:
                    self.save()
                if self.sample is not None and (self.step % config.sample_every == 0 or self.step == config.steps):
                    self._write_grid()
                if out_of_time or done:
                    break
        return history

    def _write_grid(self) -> None:
        if self.sample is None or not self.accelerator.is_main_process:
            return
        with self.averaged_weights(), torch.no_grad():
            grid = self.sample()
        folder = Path(self.config.output_dir) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        grid.save(folder / f"step_{self.step:06d}.png")
