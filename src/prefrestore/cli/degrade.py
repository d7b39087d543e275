"""``prefrestore degrade``: pairs of sharp and degraded pictures from a folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer


def degrade(
    source: Annotated[Path, typer.Argument(help="Folder of sharp pictures; its structure is kept.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Gets hq/NAME.png and lq/NAME.png.")],
    preset: Annotated[
        str,
        typer.Option(help="paper, classic, bench-mild, bench-severe, old-photo, nearly-clean or training."),
    ] = "paper",
    seed: Annotated[int, typer.Option(min=0, help="One seed gives the same pairs on every machine.")] = 0,
    size: Annotated[
        int | None, typer.Option(min=1, help="Shrink to this shorter side, in pixels, before degrading.")
    ] = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out pairs that are there already.")
    ] = False,
) -> None:
    """Make LQ/HQ pairs from a folder of pictures, by a seeded degradation."""
    from rich.console import Console
    from rich.progress import track

    from prefrestore.degrade.folder import degrade_folder

    console = Console(stderr=True)

    def progress(files: Iterable[Path]) -> Iterator[Path]:
        yield from track(list(files), "degrading", console=console, disable=not console.is_terminal)

    report = degrade_folder(
        source, output, preset, seed=seed, size=size, skip_existing=skip_existing, progress=progress
    )
    for _, sentence in report.failed:
        typer.echo(f"failed: {sentence}", err=True)
    typer.echo(f"{len(report.done)} pairs, {len(report.skipped)} there already, {len(report.failed)} failed")
    if report.failed:
        raise typer.Exit(1)
