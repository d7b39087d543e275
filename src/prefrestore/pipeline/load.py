"""A pipeline on a device, ready for a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal


def pick_device(name: str) -> str:
    """``auto`` as the best device there is; InvalidInputError when the one that was named is not there."""
    import torch

    from prefrestore.errors import InvalidInputError

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, found in there.items() if found)
    if not there[name]:
        raise InvalidInputError(f"--device {name}: this machine has no such device that torch can use")
    return name


def load_pipeline(
    preset: str,
    model: Path | None,
    device: str,
    dtype: str,
    *,
    preference: bool | Path = True,
    face_size: int | Literal["core"] | None = None,
    offload: str = "none",
    tile: bool = False,
) -> Any:
    """The preset's pipeline, or the one in the folder `model`, on `device`; ``face_size``: as
    `prefrestore.pipeline.build.load_preset_pipeline`; ``offload``, ``tile``: as
    `prefrestore.models.offload.place`. Raises WeightsError, InvalidInputError.
    """
    import diffusers
    import torch
    import transformers

    from prefrestore.models.offload import place
    from prefrestore.pipeline.build import load_preset_pipeline

    # Loading takes a second; two libraries' bars about it would drown what the user asked for.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    options = {"folder": model, "dtype": getattr(torch, dtype), "preference": preference, "face_size": face_size}
    pipeline = place(load_preset_pipeline(preset, **options), device, offload=offload, tile=tile)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
