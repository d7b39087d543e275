"""What is kept of each face, so that strengths and choices change without the model.

faces/K/before.png      the aligned crop of the input
faces/K/guess-N.npy     restoration N as the model drew it, with the photo's colours: S x S x 3 float32
faces/K/guess-N.png     the same to look at
faces/K/place.npz       where it goes, and the picture under it without any face, in the output's pixels
faces/K/uncertainty.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prefrestore.faces import blend
from prefrestore.faces.align import Floats
from prefrestore.files.atomic import written_beside
from prefrestore.pictures.encode import write_photo
from prefrestore.pictures.read import read_photo
from prefrestore.restoration.record import FaceRecord, PhotoResult
from prefrestore.serve.schemas import Face, Guess, Options

Box = tuple[int, int, int, int]


class Place(NamedTuple):
    """Where a face goes. ``region``: x, y, width, height in the output."""

    matrix: Floats
    region: Box
    ground: NDArray[Any]
    one_channel: bool


def face_folder(folder: Path, index: int) -> Path:
    """Of a restoration's folder and a face's number."""
    return folder / "faces" / str(index)


def as_face(record: FaceRecord, options: Options) -> Face:
    """The document of a face that was just found, and with these options restored or not."""
    restored = record.status == "restored"
    first = Guess(
        number=0,
        seed=options.seed if record.spread is None else record.spread.seed,
        prompt=options.prompt,
        fidelity=options.fidelity,
        steps=options.steps,
        similarity=record.similarity,
        warnings=list(record.warnings),
    )
    return Face(
        index=record.index,
        box=record.box,
        points=list(record.points),
        score=record.score,
        status=record.status,
        reason=record.reason,
        quality=round(record.quality, 4),
        similarity=record.similarity,
        warnings=list(record.warnings),
        on=restored,
        strength=record.strength if restored else 1.0,
        first_strength=record.strength if restored else 1.0,
        guess=0 if restored else None,
        guesses=[first] if restored else [],
    )


def keep_before(folder: Path, result: PhotoResult, record: FaceRecord) -> None:
    """Keep the crop of the input."""
    if record.before is not None:
        write_photo(result.photo.about(record.before), face_folder(folder, record.index) / "before.png")


def keep_guess(folder: Path, result: PhotoResult, index: int, number: int) -> None:
    """Keep face ``index`` of a result as its restoration ``number``."""
    place = face_folder(folder, index)
    after = result.faces[index].after
    if after is not None:
        write_photo(result.photo.about(after), place / f"guess-{number}.png")
    _save(place / f"guess-{number}.npy", result.patches[index].pixels)


def keep_place(folder: Path, result: PhotoResult, without: NDArray[Any], index: int) -> Box:
    """Keep where face ``index`` goes in the output; ``without``: the output without faces. Returns its region."""
    patch, (height, width) = result.patches[index], without.shape[:2]
    if result.settings["aligned"]:
        x0, y0, x1, y1 = 0, 0, width, height
    else:
        x0, y0, x1, y1 = (int(value) for value in blend.patch_bounds(patch, width, height))
    region = (x0, y0, max(x1 - x0, 0), max(y1 - y0, 0))
    with written_beside(face_folder(folder, index) / "place.npz") as part, part.open("wb") as file:
        np.savez(
            file,
            matrix=patch.matrix,
            region=np.array(region),
            ground=without[y0:y1, x0:x1],
            one_channel=np.array(result.one_channel),
        )
    return region


def load_place(folder: Path, index: int) -> Place:
    """What `keep_place` kept."""
    with np.load(face_folder(folder, index) / "place.npz", allow_pickle=False) as kept:
        x, y, width, height = kept["region"].tolist()
        return Place(kept["matrix"], (x, y, width, height), kept["ground"], bool(kept["one_channel"]))


def load_guess(folder: Path, index: int, number: int) -> blend.Float32:
    """S x S x 3 in 0..1."""
    pixels: blend.Float32 = np.load(face_folder(folder, index) / f"guess-{number}.npy", allow_pickle=False)
    return pixels


def load_crop(folder: Path, index: int, name: str) -> NDArray[np.uint8]:
    """``before``, ``guess-N`` or ``uncertainty``: S x S x 3."""
    return read_photo(face_folder(folder, index) / f"{name}.png").rgb8()


def profile(folder: Path, index: int) -> bytes | None:
    """The colour profile of the photo, which its crops bear."""
    from PIL import Image

    with Image.open(face_folder(folder, index) / "before.png") as crop:
        found = crop.info.get("icc_profile")
    return bytes(found) if found else None


def overlap(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two regions (x, y, width, height) share a pixel."""
    return (
        one[0] < other[0] + other[2]
        and other[0] < one[0] + one[2]
        and one[1] < other[1] + other[3]
        and other[1] < one[1] + one[3]
    )


def _save(path: Path, values: NDArray[Any]) -> None:
    with written_beside(path) as part, part.open("wb") as file:
        np.save(file, values, allow_pickle=False)
