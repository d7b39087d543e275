"""What every training stage's settings have in common, and the loop's settings made from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prefrestore.training.schedule import LoopConfig


def usual_precision() -> str:
    """``bf16`` where the device computes in it, else ``no``: bf16 that is only imitated is far slower than float32."""
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Older versions of torch cannot tell; float32 is right everywhere.
        able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        native = any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return "bf16" if native else "no"


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Fields of every stage; a stage sets its own defaults and documents what they mean there.

    ``batch_size`` counts the samples of a micro-batch, ``micro_batches`` those of a step over all processes (None: one
    a process, or as many as the checkpoint says). ``mixed_precision`` is ``no``, ``bf16``, or ``auto``, which becomes
    one of the two when the settings are made (`usual_precision`).
    """

    data: tuple[Path, ...]
    output_dir: Path
    preset: str = "compact"
    steps: int
    batch_size: int
    micro_batches: int | None = None
    learning_rate: float
    seed: int = 0
    mixed_precision: str = "auto"
    num_workers: int = 0
    max_minutes: float | None = None
    sample_every: int = 500
    save_every: int = 200

    def __post_init__(self) -> None:
        if self.mixed_precision == "auto":
            object.__setattr__(self, "mixed_precision", usual_precision())

    def loop(self, stage: str, **changes: Any) -> LoopConfig:
        """The loop's settings for a run under ``output_dir/runs/stage``; ``changes`` are fields of `LoopConfig`."""
        settings = {
            "output_dir": self.output_dir / "runs" / stage,
            "steps": self.steps,
            "batch_size": self.batch_size,
            "micro_batches": self.micro_batches,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            "mixed_precision": self.mixed_precision,
            "num_workers": self.num_workers,
            "max_minutes": self.max_minutes,
            "sample_every": self.sample_every,
            "save_every": self.save_every,
        }
        return LoopConfig(**{**settings, **changes})
