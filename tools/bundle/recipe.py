"""Which stages the bundle runs, in which order, with which settings, and how far each has come."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from prefrestore.preference import trainer as preference
from prefrestore.training import autoencoder, encoder, fidelity, octave, semantic, tokenizer
from prefrestore.training.components import is_finished, read_record

ASKED = ("encoder", "fidelity", "preference", "octave")
"""The stages of a run; the others only make what is missing."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A trainer, the component by which it is told how far it has come, and what else it writes.

    ``large``: settings where there is an accelerator; on a CPU the trainer's own hold. They are a first choice from the
    CPU's recipe, larger batches and more of them, and were not tuned.
    """

    name: str
    trainer: ModuleType
    component: str
    others: tuple[str, ...] = ()
    large: dict[str, Any]


STAGES = (
    Stage(name="autoencoder", trainer=autoencoder, component="autoencoder", large={"steps": 4000, "batch_size": 64}),
    Stage(name="tokenizer", trainer=tokenizer, component="image_tokenizer", large={"steps": 2000, "batch_size": 64}),
    Stage(
        name="semantic",
        trainer=semantic,
        component="language_model",
        others=("text_tokenizer",),
        large={"steps": 1500, "batch_size": 64},
    ),
    Stage(
        name="encoder",
        trainer=encoder,
        component="lq_encoder",
        others=("input_skip",),
        large={"steps": 12000, "batch_size": 64, "pairs": 24576},
    ),
    Stage(
        name="fidelity",
        trainer=fidelity,
        component="transformer",
        others=("connectors",),
        large={"steps": 8000, "batch_size": 64, "pairs": 16384},
    ),
    Stage(
        name="preference",
        trainer=preference,
        component="preference",
        large={"steps": 200, "batch_size": 8, "pairs": 4096},
    ),
    Stage(
        name="octave",
        trainer=octave,
        component="last_octave",
        large={"steps": 10000, "batch_size": 64, "pairs": 8192},
    ),
)
TINY: dict[str, dict[str, Any]] = {
    "autoencoder": {"crop": 32},
    "encoder": {"decoded_margin": 1},
    "fidelity": {"decoded_margin": 1},
    "preference": {"rewards": "identity=1,lpips=1"},
    "octave": {"crop": 64, "min_side": 0},
}
"""Where the trainers' settings for 256 px ask what the tiny preset's 64 px do not have: room at the edges of decoded
faces, and faces that a detector finds in restorations of a model that was hardly trained."""


def up_to(asked: Collection[str]) -> tuple[Stage, ...]:
    """The stages up to the last that is asked for: each needs components of those before it."""
    last = max(k for k, stage in enumerate(STAGES) if stage.name in asked)
    return STAGES[: last + 1]


def settings(stage: Stage, *, scale: float, preset: str) -> dict[str, Any]:
    """The stage's settings that differ from its trainer's; ``scale`` multiplies steps and pairs."""
    chosen = dict(stage.large) if torch.accelerator.is_available() else {}
    chosen |= TINY.get(stage.name, {}) if preset == "tiny" else {}
    config = stage.trainer.Config
    chosen["steps"] = max(2, round(chosen.get("steps", config.steps) * scale))
    chosen.setdefault("batch_size", config.batch_size)
    if hasattr(config, "pairs"):
        chosen["pairs"] = max(chosen["batch_size"], round(chosen.get("pairs", config.pairs) * scale))
    chosen["sample_every"] = max(1, chosen["steps"] // 4)
    chosen["save_every"] = max(1, min(1000, chosen["steps"] // 4))
    if stage.name == "preference":
        chosen["tracker"] = "none"
    return chosen


def steps_done(stage: Stage, work: Path) -> int | None:
    """Steps of the stage's component in the working folder; None where it is whole and this stage is not asked."""
    folder = work / stage.component
    if not folder.is_dir() or not is_finished(folder):
        return 0
    record = read_record(folder)
    if record is None or record["stage"] != stage.name:  # carried in the bundle, or a later stage went on from it
        return None
    return int(record["steps"])


def lay_out(first: Path, work: Path, asked: tuple[str, ...]) -> None:
    """Put first weights of stages that are not asked for into the working folder, as finished components."""
    for stage in STAGES:
        names = (stage.component, *stage.others)
        if stage.name in asked or not all((first / name).is_dir() for name in names if name != "input_skip"):
            continue
        for name in names:
            if (first / name).is_dir() and not (work / name).exists():
                shutil.copytree(first / name, work / name)


def starting_point(stage: Stage, first: Path) -> dict[str, Path]:
    """``start_from`` for a stage that can go on from first weights that are there."""
    known = {"encoder": ("lq_encoder",), "fidelity": ("transformer", "connectors"), "octave": ("last_octave",)}
    needed = known.get(stage.name)
    there = needed is not None and all((first / name).is_dir() for name in needed)
    return {"start_from": first} if there else {}
