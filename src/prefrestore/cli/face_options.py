"""The options of ``prefrestore restore`` that say which faces are restored, and how strongly."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from prefrestore.cli.choices import numbers

Faces = Annotated[
    str | None,
    typer.Option(metavar="0,2|all", help="Restore these faces, counted from the left, whatever the rules say."),
]
Strength = Annotated[
    str | None,
    typer.Option(metavar="0..1|0:0.4,2:1", help="How much of each face is the restored one; by face, others 1."),
]
MinFace = Annotated[float | None, typer.Option(min=0, metavar="PX", help="Leave out narrower faces; 16.")]
MaxYaw = Annotated[
    float | None, typer.Option(min=0, max=90, metavar="DEGREES", help="Leave out faces turned further; 55.")
]
MinScore = Annotated[
    float | None, typer.Option(min=0, max=1, help="Leave out faces that the detector is less sure of; none.")
]
SharpEnough = Annotated[
    float | None, typer.Option(min=0, max=1, help="Leave out faces of this quality and more; 0.56.")
]
FaceSize = Annotated[
    int | None,
    typer.Option(metavar="PX", help="Restore faces at 512 px (the package's weights), or faster at 256."),
]
KeepLikeness = Annotated[
    bool, typer.Option("--keep-likeness/--no-keep-likeness", help="Restore faces less that become less alike.")
]


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
