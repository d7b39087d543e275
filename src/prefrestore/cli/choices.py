"""What the options of ``prefrestore restore`` may be: names to choose from, and lists in text."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from prefrestore.errors import InvalidInputError
from prefrestore.restoration.told import TOLD


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


def told(name: str, *flags: str, is_text: bool = False, **more: Any) -> Any:
    """The option of a choice that `prefrestore.restoration.told` tells of.

    Args:
        name: of the choice.
        flags: ``--flag`` where it is not the parameter's own name.
        is_text: the option is a text, which the command reads itself: numbers have no limits before.
        more: as of ``typer.Option``.
    """
    one = TOLD[name]
    limits = {} if is_text else {"min": one.least, "max": one.most}
    given: dict[str, Any] = {"help": one.text, **limits, **more}
    return typer.Option(*flags, **given)


def numbers(text: str | None) -> tuple[int, ...] | None:
    """``0,2`` as numbers; raises typer.BadParameter for anything else."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not a list of numbers like 0,2") from None


def named(text: str) -> Path:
    """A path that was named; an empty text would be the current folder."""
    if not text:
        raise typer.BadParameter("the name is empty; the current folder is '.'")
    return Path(text)


class Strict(TyperCommand):
    """A command in which everything that is asked for and not accepted is a mistake: one sentence, exit status 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except InvalidInputError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from error
