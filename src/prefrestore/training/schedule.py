"""How long a run is, how fast it learns, and where the randomness of each of its steps comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What every stage's run shares.

    Args:
        output_dir: checkpoints, grids and ``log.jsonl`` go here.
        steps: length of the schedule; the run ends there.
        batch_size: samples of a micro-batch.
        micro_batches: how many of them make a step, over all processes; None is what the checkpoint says, and one a
            process in a new run.
        learning_rate: peak; linear warm-up over ``warmup_steps``, then cosine to ``final_lr_ratio`` of it.
        max_minutes: stop (with a checkpoint) after this long, so that a long run can be made of short ones.
        mixed_precision: ``no`` or ``bf16``; parameters and moments stay float32.
        num_workers: processes that prepare batches; 0 prepares them in the loop.
        tracker: who is told the curves beside ``log.jsonl``: ``none``, or one of Accelerate's names.
    """

    output_dir: Path
    steps: int
    batch_size: int
    micro_batches: int | None = None
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


def step_generator(seed: int, step: int, part: int = 0, device: str | torch.device = "cpu") -> torch.Generator:
    """The noise source of one micro-batch: distinct for every (seed, step, part), the same at every run."""
    mixed = (seed * 1_000_003 + step) * 4_099 + part
    return torch.Generator(device).manual_seed(mixed % (2**63))


def learning_rate_at(step: int, config: LoopConfig) -> float:
    """Linear warm-up, then half a cosine from the peak to ``final_lr_ratio`` times the peak at ``steps``."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    span = max(1, config.steps - config.warmup_steps)
    progress = min(1.0, (step - config.warmup_steps) / span)
    cosine = 0.5 * (1 + torch.cos(torch.tensor(progress * torch.pi)).item())
    return config.learning_rate * (config.final_lr_ratio + (1 - config.final_lr_ratio) * cosine)
