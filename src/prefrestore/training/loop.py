"""The one training loop: seeded steps, EMA, bf16 by autocast, exact resumption, throughput, sample grids.

Everything random in step k is drawn from generators seeded by (seed, k), and a checkpoint holds the trained
parameters, their moving average and the optimiser's moments; so a killed run that resumes sees the same batches and
the same noise, and gives the same losses as one that was never stopped.

A step is made of micro-batches, each with its own samples and its own random numbers. Processes share them out, and one
that has several adds up their gradients; so what a run computes depends on the number of micro-batches, which its
checkpoint keeps, and not on the number of processes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.files.fingerprints import first_differences
from prefrestore.training import processes, sharding
from prefrestore.training.components import write_components
from prefrestore.training.progress import progress
from prefrestore.training.schedule import LoopConfig, learning_rate_at, step_generator

Batch = Mapping[str, Any]
Losses = dict[str, Tensor]


class Trainer:
    """Holds what a run changes: parameters, their moving average, moments and the step.

    Args:
        objective: ``objective(**batch, generator=g)`` returns a dict of scalar losses with the total under ``loss``;
            its parameters with ``requires_grad`` are trained.
        make_batch: number of a micro-batch -> keyword tensors for the objective; a pure function of the number, which
            is that of the step where one micro-batch makes a step.
        config: see `LoopConfig`.
        sample: called every ``sample_every`` steps with the averaged weights in place; returns a grid to save.
        after_step: called with the losses of each step; True ends the run (with a checkpoint).
        extra_tensors: what else a run changes; kept in the checkpoint, and filled in place from it.
        notes: the same for plain numbers and texts: a dictionary of JSON values, updated in place.
        identity: what decides the run (`prefrestore.training.identity`); a checkpoint of another is refused.
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
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        if config.steps < 1 or config.batch_size < 1:
            raise InvalidInputError("training needs at least one step and one sample a step")
        if config.mixed_precision not in ("no", "bf16"):
            raise InvalidInputError(f"mixed_precision is no or bf16, not '{config.mixed_precision}'")
        # Precision is the loop's own affair: Accelerate's is one for the whole process, and stages differ in theirs.
        self.accelerator = accelerator or processes.new_accelerator(config.tracker, config.output_dir)
        self.config, self.make_batch, self.sample, self.after_step = config, make_batch, sample, after_step
        self.extra_tensors, self.notes = dict(extra_tensors or {}), {} if notes is None else notes
        self.identity: dict[str, Any] = json.loads(json.dumps(dict(identity or {})))
        self.trained = {name: p for name, p in objective.named_parameters() if p.requires_grad}
        if not self.trained:
            raise InvalidInputError("the objective has no parameter to train")
        optimizer = torch.optim.AdamW(
            self.trained.values(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        names = {id(p): name for name, p in objective.named_parameters()}
        clip, low = config.gradient_clip, config.mixed_precision == "bf16"
        prepared = processes.prepare(self.accelerator, objective, optimizer, clip=clip, low=low)
        self.objective, self.optimizer, self.moments = prepared
        # Sharding puts other parameters in place of the ones that it was given.
        now, extra = dict(objective.named_parameters()), self.extra_tensors
        self.trained = {name: now[name] for name in self.trained}
        self.extra_tensors = {key: now[names[id(v)]] if id(v) in names else v for key, v in extra.items()}
        self.sharded = any(sharding.is_sharded(p) for p in now.values())
        self.average = {name: p.detach().clone() for name, p in self.trained.items()}
        self.step, self.micro_batches = 0, config.micro_batches or self.accelerator.num_processes
        self.state_file = Path(config.output_dir) / "state.safetensors"
        if config.resume and self.state_file.is_file():
            self.load()
        if self.micro_batches % self.accelerator.num_processes:
            raise InvalidInputError(
                f"a step of this run is made of {self.micro_batches} micro-batches, which "
                f"{self.accelerator.num_processes} processes cannot share evenly"
            )

    def save(self) -> None:
        """Write the checkpoint: whole tensors, whatever they are cut into here. Every process must call."""
        about = {"step": str(self.step), "notes": json.dumps(self.notes), "micro_batches": str(self.micro_batches)}
        about["identity"] = json.dumps(self.identity)
        processes.save_whole(self.accelerator, self._held(), self.state_file, about)

    def _held(self) -> Iterator[tuple[str, Tensor]]:
        for name, value in self.extra_tensors.items():
            yield f"extra.{name}", value
        for name, parameter in self.trained.items():
            yield f"model.{name}", parameter
            yield f"average.{name}", self.average[name]
            for key, value in self.moments.get(parameter).items():
                yield f"optimizer.{key}.{name}", value

    def load(self) -> None:
        """Read the checkpoint; WeightsError when it is of another model, InvalidInputError when of another run."""
        with safe_open(self.state_file, "pt") as file:
            about = file.metadata()
            held = json.loads(about.get("identity", "{}"))
            if other := first_differences(held, self.identity):
                folder = self.state_file.parent
                raise InvalidInputError(f"{folder} holds another run ({other}): give another --output-dir or remove it")
            self.step = int(about["step"])
            self.notes.update(json.loads(about.get("notes", "{}")))
            self.micro_batches = self.config.micro_batches or int(about.get("micro_batches", 1))
            keys = set(file.keys())
            wanted = [f"model.{name}" for name in self.trained] + [f"extra.{name}" for name in self.extra_tensors]
            missing = [name for name in wanted if name not in keys]
            if missing:
                more = len(missing) - 1
                raise WeightsError(f"{self.state_file}: this checkpoint has no {missing[0]} (and {more} more)")
            cut = sharding.cut_like
            with torch.no_grad():
                for name, value in self.extra_tensors.items():
                    value.copy_(cut(file.get_tensor(f"extra.{name}"), value))
                for name, parameter in self.trained.items():
                    parameter.copy_(cut(file.get_tensor(f"model.{name}"), parameter))
                    self.average[name].copy_(cut(file.get_tensor(f"average.{name}"), parameter))
                    moments = {key: f"optimizer.{key}.{name}" for key in ("step", "exp_avg", "exp_avg_sq")}
                    if moments["exp_avg"] in keys:
                        self.moments.put(parameter, {key: file.get_tensor(at) for key, at in moments.items()})
            self.moments.parameters_were_read()

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

    def export(
        self, output_dir: Path, parts: Mapping[str, Callable[[Path], object]], *, over: Iterable[str] = ()
    ) -> None:
        """Write components (`write_components`) with the moving average in place and whole. Every process must call."""

        def write() -> None:
            write_components(output_dir, parts, self.identity, self.step, over=over)

        with self.averaged_weights(), processes.whole_parameters(self.objective):
            processes.write_once(self.accelerator, write)

    def train_step(self, *batches: Batch) -> dict[str, float]:
        """One optimiser step on this process's micro-batches; returns the losses' means over all of them."""
        config, accelerator = self.config, self.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.step, config)
        low, told = config.mixed_precision == "bf16", []
        for place, batch in enumerate(batches):
            part = accelerator.process_index + place * accelerator.num_processes
            generator = step_generator(config.seed, self.step, part, accelerator.device)
            moved = {k: v.to(accelerator.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
            accelerator.sync_gradients = last = place + 1 == len(batches)
            # Gradients are added up here, and over the processes with the last ones only.
            with nullcontext() if last else accelerator.no_sync(self.objective):
                with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=low):
                    losses = self.objective(**moved, generator=generator)
                accelerator.backward(losses["loss"] / len(batches))
            told.append({key: float(value.detach()) for key, value in losses.items()})
        # DeepSpeed has clipped and stepped by now, and tells the norm; what follows changes nothing then.
        norm = sharding.whole(accelerator.clip_grad_norm_(self.trained.values(), config.gradient_clip))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        # The average starts fast and slows down to its decay, or the first weights would linger in short runs.
        decay = min(config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            averages, values = ([sharding.piece(p) for p in kept.values()] for kept in (self.average, self.trained))
            torch._foreach_lerp_(averages, values, 1 - decay)
        means = {key: sum(row[key] for row in told) / len(told) for key in told[0]}
        return processes.mean_over_processes(accelerator, means) | {"gradient_norm": float(norm)}

    def fit(self) -> list[dict[str, float]]:
        """Train until ``steps`` or ``max_minutes``; returns the losses of each step of this call."""
        config, started, history = self.config, time.monotonic(), []
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        mine = range(self.step * self.micro_batches + rank, config.steps * self.micro_batches, world)
        loader = processes.micro_batches(self.make_batch, mine, config.num_workers)
        log_file = Path(config.output_dir) / "log.jsonl"
        log_file.parent.mkdir(parents=True, exist_ok=True)
        mark, mark_step, waited = time.monotonic(), self.step, 0.0
        with loader as batches, progress(config.steps, self.accelerator.is_main_process) as report:
            while self.step < config.steps:
                asked = time.monotonic()
                share = list(islice(batches, self.micro_batches // world))
                waited += time.monotonic() - asked
                losses = self.train_step(*share)
                history.append(losses)
                done = self.after_step is not None and self.after_step(losses)
                if self.step % config.log_every == 0 or self.step == config.steps:
                    now = time.monotonic()
                    samples = (self.step - mark_step) * self.micro_batches * config.batch_size
                    rate, waiting = samples / max(now - mark, 1e-9), waited / max(now - mark, 1e-9)
                    mark, mark_step, waited = now, self.step, 0.0
                    window = history[-config.log_every :]
                    means = {key: sum(row[key] for row in window) / len(window) for key in window[0]}
                    report(self.step, means, rate)
                    self.accelerator.log(means, step=self.step)
                    if self.accelerator.is_main_process:
                        row = {"step": self.step, "samples_per_second": round(rate, 2)}
                        row |= {"waiting_for_data": round(waiting, 4)} | means
                        with log_file.open("a") as file:
                            file.write(json.dumps(row) + "\n")
                out_of_time = config.max_minutes is not None and processes.any_process(
                    self.accelerator, time.monotonic() - started > 60 * config.max_minutes
                )
                if self.step % config.save_every == 0 or self.step == config.steps or out_of_time or done:
                    self.save()
                if self.sample is not None and (self.step % config.sample_every == 0 or self.step == config.steps):
                    self._write_grid()
                if out_of_time or done:
                    break
        return history

    def _write_grid(self) -> None:
        main = self.accelerator.is_main_process
        if self.sample is None or not (main or self.sharded):  # forward passes of sharded modules need every process
            return
        with self.averaged_weights(), processes.whole_parameters(self.objective), torch.no_grad():
            grid = self.sample()
        if main:
            file = Path(self.config.output_dir) / "samples" / f"step_{self.step:06d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            grid.save(file)
