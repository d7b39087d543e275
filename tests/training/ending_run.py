"""One of two processes that train and end well, by an error of one, or by Ctrl-C: ``python ending_run.py FOLDER HOW``.

Writes into FOLDER how it ended, and what of it still runs: names of threads (Linux), and worker processes.
"""

import json
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path

import torch
from torch import Tensor, nn

from prefrestore.training.loop import Trainer
from prefrestore.training.processes import ended_in_order
from prefrestore.training.schedule import LoopConfig


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": self.layer(x).square().mean()}


def batch(number: int) -> dict[str, Tensor]:
    return {"x": torch.ones(2, 3) * number}


def train(folder: Path, how: str, rank: int) -> None:
    def after_step(losses: dict[str, float]) -> bool:
        if trainer.step == 2 and how == "error" and rank == 1:
            raise ValueError("of the second process alone")
        if trainer.step == 2 and how == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        return False

    tracker = "tensorboard" if how == "well" else "none"
    config = LoopConfig(
        output_dir=folder / "run", steps=4, batch_size=2, learning_rate=1e-2, num_workers=1, tracker=tracker
    )
    trainer = Trainer(Line(), batch, config, after_step=after_step)
    trainer.fit()


def left_over() -> list[str]:
    tasks = Path("/proc/self/task")
    native = [(task / "comm").read_text().strip() for task in tasks.iterdir()] if tasks.is_dir() else []
    mine = {threading.main_thread().name} | {"python", Path("/proc/self/comm").read_text().strip()}
    named = [thread.name for thread in threading.enumerate()] + native
    return sorted(set(named) - mine) + [child.name for child in multiprocessing.active_children()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    root, how, rank = Path(sys.argv[1]), sys.argv[2], int(os.environ["RANK"])
    ended = "well"
    # Started from a shell's background a process ignores Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ended_in_order():
            train(root, how, rank)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001
        ended = f"{type(error).__name__}: {error}"
    (root / f"{rank}.json").write_text(json.dumps({"ended": ended, "left over": left_over()}))
