"""What a slice leaves: at most eight files of 16 MiB, with averaged weights in half precision, the logs and a sheet."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from safetensors.torch import load_file, save

from prefrestore.errors import InvalidInputError
from prefrestore.files.atomic import written_beside
from prefrestore.training.components import read_record

FILES, LARGEST = 8, 16 * 2**20
"""How many files, and how many bytes each may have."""
PIECE = "weights.tar"


def gather(work: Path, out: Path, report: Sequence[str]) -> list[Path]:
    """Write the files of ``out`` and give their paths.

    The weights are those of components that runs in ``work`` wrote, as one tar that is cut into pieces: put together
    (`cat weights.tar.*`) and unpacked they are a working folder. Optimisers' moments stay in ``work/runs``.

    Raises:
        InvalidInputError: it would be more than eight files.
    """
    pieces = cut(packed(work), LARGEST)
    if len(pieces) > FILES - 2:
        most = f"and {FILES - 2} is the most"
        raise InvalidInputError(f"the weights fill {len(pieces)} files of {LARGEST / 2**20:g} MiB, {most}")
    written = []
    for number, piece in enumerate(pieces):
        written.append(put(out / f"{PIECE}.{number:02d}", piece))
    for path in out.glob(f"{PIECE}.[0-9][0-9]"):  # of an earlier slice that had more of them
        if path not in written:
            path.unlink()
    rows = [{"report": line} for line in report]
    for log in sorted((work / "runs").glob("*/log.jsonl")):
        rows += [{"stage": log.parent.name} | json.loads(line) for line in log.read_text().splitlines()]
    lines = [json.dumps(row) + "\n" for row in rows]
    while sum(map(len, lines)) > LARGEST:  # the oldest steps of the first stages go first
        del lines[len(report) : len(report) + 1000]
    written.append(put(out / "log.jsonl", "".join(lines).encode()))
    if picture := sheet(work):
        written.append(put(out / "sheet.webp", picture))
    return written


def packed(work: Path) -> bytes:
    """A tar of the components that a run wrote, weights in half precision; empty where there is none."""
    target = io.BytesIO()
    folders = [path.parent for path in sorted(work.glob("*/run.json")) if read_record(path.parent)]
    if not folders:
        return b""
    with tarfile.open(fileobj=target, mode="w") as archive:
        for folder in folders:
            for path in sorted(folder.glob("*")):
                data = path.read_bytes()
                if path.suffix == ".safetensors":
                    tensors = load_file(path).items()
                    data = save({k: v.half() if v.is_floating_point() else v for k, v in tensors}, {"format": "pt"})
                # The record is of the files in full precision; kept as a note, it would call the copies damaged.
                name = "made_by.json" if path.name == "run.json" else path.name
                entry = tarfile.TarInfo(f"{folder.name}/{name}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return target.getvalue()


def cut(data: bytes, size: int) -> list[bytes]:
    """Pieces of at most ``size`` bytes."""
    return [data[k : k + size] for k in range(0, len(data), size)]


def sheet(work: Path) -> bytes:
    """The latest grid of each stage under one another as WebP; empty where there is none."""
    latest = [max(found) for folder in sorted((work / "runs").glob("*/samples")) if (found := [*folder.glob("*.png")])]
    grids = [Image.open(path).convert("RGB") for path in latest]
    if not grids:
        return b""
    picture = Image.new("RGB", (max(g.width for g in grids), sum(g.height for g in grids)))
    top = 0
    for grid in grids:
        picture.paste(grid, (0, top))
        top += grid.height
    most = max(picture.size)
    if most > 16383:  # WebP's longest side
        picture = picture.resize((picture.width * 16383 // most, picture.height * 16383 // most))
    target = io.BytesIO()
    picture.save(target, "WEBP", quality=85)
    return target.getvalue()


def put(path: Path, data: bytes) -> Path:
    """Write a file, whole or not at all."""
    with written_beside(path) as part:
        part.write_bytes(data)
    return path
