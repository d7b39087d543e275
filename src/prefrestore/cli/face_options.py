"""The options of ``prefrestore restore`` that say which faces are restored, and how strongly."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from prefrestore.cli.choices import numbers, told

Faces = Annotated[str | None, told("faces", metavar="0,2|all", is_text=True)]
Strength = Annotated[str | None, told("strength", metavar="0..1|0:0.4,2:1", is_text=True)]
MinFace = Annotated[float | None, told("min_face", metavar="PX")]
MaxYaw = Annotated[float | None, told("max_yaw", metavar="DEGREES")]
MinScore = Annotated[float | None, told("min_score")]
SharpEnough = Annotated[float | None, told("sharp_enough")]
FaceSize = Annotated[
    int | None,
    typer.Option(metavar="PX", help="Restore faces at 512 px (the package's weights), or faster at 256."),
]
KeepLikeness = Annotated[bool, told("keep_likeness", "--keep-likeness/--no-keep-likeness")]


def face_options(
    faces: str | None, strength: str | None, *, keep_likeness: bool, **limits: float | None
) -> dict[str, Any]:
    """The options as `prefrestore.restoration.options.RestoreOptions` takes them; what is None is left to it.

    Args:
        limits: ``min_face``, ``max_yaw``, ``min_score``, ``sharp_enough``.

    Raises:
        typer.BadParameter: a text that is neither a number nor a list of them.
    """
    given: dict[str, Any] = {name: value for name, value in limits.items() if value is not None}
    given["faces"] = "all" if faces == "all" else numbers(faces)
    if strength is not None:
        given["strength"] = parse_strength(strength)
    return {**given, "keep_likeness": keep_likeness}


def parse_strength(text: str) -> float | dict[int, float]:
    """``0.5`` for all faces, or ``0:0.4,2:1`` by face; raises typer.BadParameter for anything else."""
    try:
        if ":" not in text:
            return float(text)
        pairs = [part.split(":") for part in text.split(",")]
        return {int(index): float(value) for index, value in pairs}
    except ValueError:
        raise typer.BadParameter(f"'{text}' is neither a number from 0 to 1 nor a list like 0:0.4,2:1") from None
