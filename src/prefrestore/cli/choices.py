"""What the options of ``prefrestore restore`` may be: names to choose from, and lists in text."""

from __future__ import annotations

from enum import Enum

import typer


class Device(str, Enum):
    """Where the model runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Precision(str, Enum):
    """The model's numbers."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class Engine(str, Enum):
    """What runs the photos."""

    local = "local"
    ray = "ray"


class Offload(str, Enum):
    """Which weights leave the accelerator between their turns."""

    none = "none"
    model = "model"
    sequential = "sequential"


class Chosen(str, Enum):
    """Which of several restorations is shown."""

    first = "first"
    medoid = "medoid"
    best = "best"


class Format(str, Enum):
    """What outputs are written as; the name's ending."""

    jpg = "jpg"
    png = "png"
    webp = "webp"
    tiff = "tiff"
    avif = "avif"


def numbers(text: str | None) -> tuple[int, ...] | None:
    """``0,2`` as numbers; raises typer.BadParameter for anything else."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not a list of numbers like 0,2") from None
