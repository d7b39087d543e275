"""``prefrestore convert``: published weights to a pipeline folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[Path, typer.Argument(help="Folder of an assembled model or of SANA, or ta_tok.pth.")],
    destination: Annotated[Path, typer.Argument(help="Folder to write; must not exist.")],
    lora: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The preference adapter; SOURCE/lora needs no naming.")
    ] = None,
    architecture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON with component arguments of another scale.")
    ] = None,
    shard_gb: Annotated[float, typer.Option(min=0.001, help="Largest file, in GB; about the memory needed.")] = 2,
) -> None:
    """Turn published weights into a folder that every command takes as --model; every tensor is accounted for."""
    from prefrestore.pipeline.published.components import Architecture
    from prefrestore.pipeline.published.convert import convert as run

    run(
        source,
        destination,
        lora=lora,
        architecture=None if architecture is None else Architecture.read(architecture),
        shard_bytes=int(shard_gb * 1e9),
        log=typer.echo,
    )
