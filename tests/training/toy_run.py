"""A run of a noisy regression, for one process or for several: ``python toy_run.py FOLDER``, or launched so.

A checkpoint that lies in FOLDER/moved is gone on from; a second argument is the number of micro-batches in a new run.
"""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from prefrestore.training.loop import Trainer
from prefrestore.training.processes import ended_in_order
from prefrestore.training.schedule import LoopConfig

STEPS, CUT, MICRO_BATCHES = 6, 3, 2


class Toy(nn.Module):
    """Batch and generator both matter; one layer is never used, and one is frozen."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 2)
        self.unused = nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 1).requires_grad_(False)
        nn.init.ones_(self.frozen.weight)
        nn.init.zeros_(self.unused.weight)
        nn.init.zeros_(self.unused.bias)
        nn.init.zeros_(self.frozen.bias)

    def forward(self, x: Tensor, shift: list[float], generator: torch.Generator) -> dict[str, Tensor]:
        noisy = x + torch.randn(x.shape, generator=generator) + torch.tensor(shift)[:, None]
        error = (self.frozen(self.second(self.first(noisy).tanh())) - 1).square()
        return {"loss": error.mean(), "worst": error.max()}


def toy_batch(number: int) -> dict[str, object]:
    generator = torch.Generator().manual_seed(number)
    return {"x": torch.randn(4, 3, generator=generator), "shift": torch.rand(4, generator=generator).tolist()}


def toy_trainer(folder: Path, micro_batches: int | None = None, stop_at: int = STEPS) -> Trainer:
    config = LoopConfig(
        output_dir=folder, steps=STEPS, batch_size=4, learning_rate=1e-2, warmup_steps=2, micro_batches=micro_batches,
        gradient_clip=0.5, max_minutes=10,
    )  # fmt: skip
    trainer = Trainer(Toy(), toy_batch, config, after_step=lambda losses: trainer.step == stop_at)
    return trainer


def main(root: Path, micro_batches: int | None) -> None:
    toy_trainer(root / "cut", micro_batches, stop_at=CUT).fit()
    whole = toy_trainer(root / "whole", micro_batches)
    history = whole.fit()
    (root / f"history_{whole.accelerator.process_index}.json").write_text(json.dumps(history))
    if (root / "moved").is_dir():
        toy_trainer(root / "moved").fit()


if __name__ == "__main__":
    torch.set_num_threads(1)
    with ended_in_order():
        main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else None)
