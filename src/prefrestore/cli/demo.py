"""What ``make demo`` runs: a photo is degraded, restored the way ``prefrestore restore`` does it, and shown.

The photo is that of `prefrestore.degrade.example`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from prefrestore.restoration.plan import Task


def main(
    photos: Annotated[list[str] | None, typer.Argument(help="Photos of yours to restore too.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the pictures.")] = Path("demo"),
    preset: Annotated[str, typer.Option(help="compact, or tiny (random weights, for tests).")] = "compact",
) -> None:
    """Degrade a photo, restore it, and say where the pictures are."""
    from prefrestore.cli.report import report
    from prefrestore.degrade.example import write_example
    from prefrestore.pipeline.load import load_pipeline
    from prefrestore.restoration.batch import PhotoRestorer, run_tasks
    from prefrestore.restoration.options import RestoreOptions
    from prefrestore.restoration.plan import Task, make_plan

    example = Task(
        source=output / "before.png",
        output=output / "after.png",
        record=output / "after.json",
        compare=output / "side_by_side.png",
        crops=output / "faces",
        uncertainty=output / "after.uncertainty.png",
    )
    write_example(example.source)
    plan = make_plan(photos or [], output / "photos")
    tasks = [example, *plan.tasks]
    pipeline = load_pipeline(preset, None, "cpu", "float32")
    # The example's face is smaller than the model's: at twice the size, all that the model draws can be seen.
    twice = PhotoRestorer(pipeline, RestoreOptions(scale=2))
    as_it_is = PhotoRestorer(pipeline, RestoreOptions(), compare=True)
    outcomes = run_tasks(tasks, lambda task: (twice if task is example else as_it_is)(task))
    well = report(outcomes, len(tasks), [sentence for _, sentence in plan.failed], plan.notes)
    if example.record.is_file():
        show(example, output / "compare.png")
        typer.echo(f"look at {output / 'compare.png'}: before on the left, after on the right, the face below")
    for task in plan.tasks:
        if task.compare.is_file():
            typer.echo(f"look at {task.compare}")
    if not well:
        raise typer.Exit(1)


def show(example: Task, path: Path) -> None:
    """Before and after beside each other: the whole pictures at the size of before, and below the face, enlarged."""
    import json

    import cv2
    import numpy as np

    from prefrestore.pictures.encode import write_photo
    from prefrestore.pictures.read import as_photo, read_photo

    record = json.loads(example.record.read_text())
    width, height = record["input"]["size"]
    columns = []
    for picture in (example.source, example.output):
        pixels = read_photo(picture).rgb8()
        box = [value * pixels.shape[1] / width for value in record["faces"][0]["box"]]
        whole = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        columns.append(np.vstack([whole, zoomed(pixels, (box[0], box[1], box[2], box[3]), width)]))
    gap = np.full((len(columns[0]), 8, 3), 255, np.uint8)
    write_photo(as_photo(np.hstack([columns[0], gap, columns[1]])), path)


def zoomed(picture: NDArray[np.uint8], box: tuple[float, float, float, float], side: int) -> NDArray[np.uint8]:
    """The square around a face (x, y, width, height in px), half as large again, as `side` x `side` px.

    It is moved, and shrunk if need be, to lie inside the picture (H x W x 3).
    """
    import cv2
    import numpy as np

    x, y, width, height = box
    length = min(round(max(width, height) * 1.5), *picture.shape[:2])
    left = int(np.clip(round(x + width / 2 - length / 2), 0, picture.shape[1] - length))
    top = int(np.clip(round(y + height / 2 - length / 2), 0, picture.shape[0] - length))
    cut = picture[top : top + length, left : left + length]
    kind = cv2.INTER_AREA if length > side else cv2.INTER_LANCZOS4
    return np.asarray(cv2.resize(cut, (side, side), interpolation=kind), dtype=np.uint8)


def run() -> None:
    """The module's command: an error raised on purpose is one sentence, and the exit status is 1."""
    import sys

    from prefrestore.cli.report import escape_unprintable
    from prefrestore.errors import PrefRestoreError

    escape_unprintable()
    try:
        typer.run(main)
    except PrefRestoreError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    run()
