"""Steps of a stage at the published layout: ``python steps_run.py STAGE DATA PRESET MODEL OUTPUT``."""

import json
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.pipeline.pipeline import PrefRestorePipeline
from prefrestore.pipeline.published.loading import is_assembled
from prefrestore.training.loop import Trainer
from prefrestore.training.processes import ended_in_order, is_main_process

STAGES = {
    "semantic": ("training.semantic", {"validation_faces": 2}),
    "fidelity": ("training.fidelity", {}),
    "preference": (
        "preference.trainer",
        {"rewards": "psnr=1", "held_out": "none", "held_out_faces": 2, "pairs": 6, "group_size": 2, "rank": 2,
         "alpha": 4, "sample_steps": 3, "degradation": "paper", "tracker": "none"},
    ),
}  # fmt: skip
STEPS = 3


@dataclass(frozen=True)
class Ran:
    """A run's trainer, and the losses of each of its steps."""

    trainer: Trainer
    losses: list[dict[str, float]]


def run(stage: str, data: Any, preset: Any, model: Any, output: Any, *, steps: int = STEPS, **more: Any) -> Ran:
    """Steps of two micro-batches of two, in float32; ``more`` are fields of the stage's configuration."""
    name, own = STAGES[stage]
    module = import_module(f"prefrestore.{name}")
    common: dict[str, Any] = {"steps": steps, "batch_size": 2, "micro_batches": 2, "learning_rate": 1e-3}
    common |= {"mixed_precision": "no", "sample_every": 100}
    paths = {"data": (Path(data),), "output_dir": Path(output), "preset": str(preset), "model": Path(model)}
    kept: list[dict[str, float]] = []
    step = Trainer.train_step

    def keeping(self: Trainer, *batches: Any) -> dict[str, float]:
        kept.append(step(self, *batches))
        return kept[-1]

    with patch.object(Trainer, "train_step", keeping):
        trainer = module.run(module.Config(**paths, **common | own | more), log=lambda line: None)
    return Ran(trainer, kept)


def restored(folder: Path, lora: Path | None = None) -> torch.Tensor:
    """A face by the tiny model in a folder of either layout, with the adapter in another."""
    if is_assembled(folder):
        from tiny_checkpoint import ARCHITECTURE

        pipeline = PrefRestorePipeline.from_pretrained(folder, architecture=ARCHITECTURE, lora=lora)
    else:
        pipeline = load_preset_pipeline("paper", folder=folder, preference=lora or False)
    face = np.random.default_rng(5).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return pipeline(face, output_type="pt", num_inference_steps=2).images


if __name__ == "__main__":
    torch.set_num_threads(1)
    with ended_in_order():
        ran = run(*sys.argv[1:])
        if is_main_process():
            (Path(sys.argv[5]) / "losses.json").write_text(json.dumps(ran.losses))
