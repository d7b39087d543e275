"""What decides a training run: its settings, the faces, the weights it stands on, and the code's format."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from prefrestore.data.identity import face_identity
from prefrestore.files.fingerprints import FORMAT
from prefrestore.pipeline.presets import preset_identity

if TYPE_CHECKING:
    from prefrestore.data.faces import FaceSet
    from prefrestore.training.pairs import Faces
    from prefrestore.training.stage import StageConfig

WITHOUT_EFFECT = frozenset(
    {
        *("output_dir", "max_minutes", "num_workers", "sample_every", "save_every", "tracker", "validation_faces"),
        *("compile", "gradient_checkpointing"),
    }
)
"""Settings that do not change what is learnt."""
TOLD_OTHERWISE = frozenset(
    {"data", "steps", "micro_batches", "start_from", "components", "model", "scorer", "reward_options", "reference"}
    | {"attribute_reader", "reader"}
)
"""Settings whose meaning is kept in another way: paths by hashes of what they lead to, ``reference`` beside these where
it is asked for, the other two by the checkpoint.

More ``steps`` than before let a run go on; so they are not part of what it is.
"""


def run_identity(
    stage: str,
    config: StageConfig,
    faces: Faces | FaceSet,
    weights: Mapping[str, nn.Module | str] | None = None,
) -> dict[str, Any]:
    """The identity of a run as JSON values.

    Args:
        stage: its name.
        faces: those it trains on.
        weights: what it stands on or starts from, by name: modules, or hashes that are known already.
    """
    hashes = {name: w if isinstance(w, str) else parameter_hash(w) for name, w in (weights or {}).items()}
    told = {"settings": run_settings(config), "data": face_identity(faces), "weights": hashes}
    return {"format": FORMAT, "stage": stage} | told


def run_settings(config: StageConfig) -> dict[str, Any]:
    """Those settings of a stage that decide what it learns, by name."""
    told = (field.name for field in fields(config) if field.name not in WITHOUT_EFFECT | TOLD_OTHERWISE)
    return {name: getattr(config, name) for name in told} | {"preset": preset_identity(config.preset)}


def start_hash(config: StageConfig, *modules: nn.Module) -> str:
    """Of the first weights that ``config.start_from`` gave; a run that started from its own folder writes over them."""
    if Path(config.start_from).resolve() == Path(config.output_dir).resolve():  # type: ignore[attr-defined]
        return "of the folder itself"
    return parameter_hash(nn.ModuleList(modules))


def parameter_hash(module: nn.Module, *, skip: str | None = None) -> str:
    """sha256 of a module's state, leaving out the entries whose name contains ``skip``."""
    hashed = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if skip is None or skip not in name:
            held = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            hashed.update(name.encode() + held.numpy().tobytes())
    return hashed.hexdigest()
