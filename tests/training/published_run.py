"""Steps of a stage at the published layout: ``python published_run.py STAGE DATA PRESET MODEL OUTPUT [STEPS]``."""

import sys
from pathlib import Path
from typing import Any

import torch

from prefrestore.training.processes import ended_in_order

STEPS = 3


def settings(stage: str, data: str, preset: str, model: str, output: str, steps: int = STEPS, **more: Any) -> Any:
    from prefrestore.training import fidelity, semantic

    kind = {"semantic": semantic, "fidelity": fidelity}[stage]
    own: dict[str, Any] = {"validation_faces": 2} if stage == "semantic" else {}
    return kind.Config(
        data=(Path(data),), output_dir=Path(output), preset=preset, model=Path(model), steps=steps, batch_size=2,
        micro_batches=2, learning_rate=1e-3, mixed_precision="no", sample_every=100, **own | more,
    )  # fmt: skip


def run(stage: str, *arguments: Any, **more: Any) -> Any:
    from prefrestore.training import fidelity, semantic

    module = {"semantic": semantic, "fidelity": fidelity}[stage]
    return module.run(settings(stage, *arguments, **more), log=lambda line: None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    stage, data, preset, model, output, *steps = sys.argv[1:]
    with ended_in_order():
        run(stage, data, preset, model, output, *map(int, steps))
