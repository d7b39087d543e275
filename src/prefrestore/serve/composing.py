"""The pictures of a restoration, put together anew from what is kept: no model runs here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from prefrestore.faces import blend
from prefrestore.faces.align import Floats
from prefrestore.files.atomic import written_beside
from prefrestore.pictures.encode import write_photo
from prefrestore.pictures.photo import Photo
from prefrestore.restoration.options import RestoreOptions
from prefrestore.restoration.render import render, render_aligned, render_aligned_at, render_at
from prefrestore.restoration.strength import Layers, mixed
from prefrestore.serve import facefiles
from prefrestore.serve.restoring import read_original, restore_options
from prefrestore.serve.schemas import Face, Restoration
from prefrestore.serve.store import output_suffix, suffix_of

# (guess, on) of a face that nobody has changed: skipped, or restored.
FIRST = ((None, False), (0, True))
# px: regions up to this are kept for the next strength; the memory of larger ones would grow with the photos.
KEPT_SIDE = 1024


def is_first(one: Restoration) -> bool:
    """Whether all is as it was restored: the result is then the file that was written."""
    return all(
        not face.late and (face.guess, face.on) in FIRST and face.strength == face.first_strength for face in one.faces
    )


def shown(one: Restoration) -> dict[int, Face]:
    """The faces that are to be seen restored, by their numbers."""
    return {face.index: face for face in one.faces if face.on and face.guess is not None and face.strength > 0}


def result_file(folder: Path, one: Restoration) -> Path:
    """The finished picture with its strengths as they are, written if it is not there yet; its record beside it."""
    if is_first(one):
        return folder / f"photo{output_suffix(one)}"
    path = folder / f"edited-{one.version}{output_suffix(one)}"
    if path.is_file() and path.with_suffix(".json").is_file():
        return path
    for old in folder.glob("edited-*"):
        old.unlink(missing_ok=True)
    original = folder / f"original{suffix_of(one.name)}"
    notes: tuple[str, ...] = ()
    if not shown(one) and one.options.scale == 1 and original.suffix == path.suffix:
        with written_beside(path) as part:
            part.write_bytes(original.read_bytes())
    else:
        notes = write_photo(whole(folder, one), path, quality=one.options.quality)
    record = json.loads((folder / "photo.json").read_text(encoding="utf-8"))
    record["notes"] += [note for note in notes if note not in record["notes"]]
    for entry, face in zip(record["faces"], one.faces, strict=True):
        entry |= _changes(face)
    with written_beside(path.with_suffix(".json")) as part:
        part.write_text(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return path


def _changes(face: Face) -> dict[str, Any]:
    """What a record says of a face after choices were made."""
    if face.guess is None:
        return {}
    guess = face.guesses[face.guess]
    return {
        "status": "restored" if face.on else "skipped",
        "reason": None if face.on else "turned off",
        "strength": face.strength,
        "identity_similarity": None if guess.similarity is None else round(guess.similarity, 4),
        "warnings": list(guess.warnings),
        "made_with": guess.made_with(),
    }


def whole(folder: Path, one: Restoration) -> Photo:
    """The whole output at its strengths."""
    photo, options, faces = read_original(folder, one), restore_options(one.options), shown(one)
    if options.aligned:
        return _whole_aligned(folder, one, photo)
    patches, one_channel = {}, False
    for index, face in faces.items():
        place = facefiles.load_place(folder, index)
        patches[index], one_channel = _patch(folder, index, face.guess or 0, place.matrix), place.one_channel
    return render_at(photo, patches, _strengths(faces), options, one_channel=one_channel)


def _whole_aligned(folder: Path, one: Restoration, photo: Photo) -> Photo:
    side, faces = one.output.size[0] if one.output else photo.size[0], shown(one)
    if not faces:
        return render_aligned_at(photo, None, 0.0, side)
    return render_aligned_at(photo, facefiles.load_guess(folder, 0, faces[0].guess or 0), faces[0].strength, side)


def region(folder: Path, one: Restoration, index: int, *, side: int, before: bool) -> NDArray[Any]:
    """What the output shows where face ``index`` lies, at most ``side`` px long; ``before``: without any face."""
    area = one.faces[index].region or (0, 0, 0, 0)
    faces = {} if before else {number: face for number, face in shown(one).items() if _touches(face, area)}
    chosen = tuple((number, face.guess or 0) for number, face in faces.items())
    layers = (_kept_layers if side <= KEPT_SIDE else _layers)(folder, index, side, chosen, one.options.aligned)
    if one.options.aligned:
        return _mixed(layers.without, layers.full, faces[0].strength if faces else 0.0)
    return layers.at(_strengths(faces))


def _layers(folder: Path, index: int, side: int, chosen: tuple[tuple[int, int], ...], aligned: bool) -> Layers:
    """A region without faces and with the chosen ones (number, guess), which no strength changes."""
    place = facefiles.load_place(folder, index)
    width, height = place.region[2:]
    factor = min(1.0, side / max(width, height))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    ground = Photo(pixels=_resized(place.ground, *size))
    if not chosen:
        return Layers(without=ground.pixels, full=ground.pixels, places={})
    if aligned:
        full = render_aligned(ground, facefiles.load_guess(folder, *chosen[0]), size[0])
        return Layers(without=ground.pixels, full=full.pixels, places={})
    patches = {}
    for number, guess in chosen:
        matrix = place.matrix if number == index else facefiles.load_place(folder, number).matrix
        matrix = moved(matrix, place.region[:2], (size[0] / width, size[1] / height))
        patches[number] = _patch(folder, number, guess, matrix)
    full = render(ground, list(patches.values()), RestoreOptions(), one_channel=place.one_channel)
    return Layers(without=ground.pixels, full=full.pixels, places=patches)


# The last few stay, so that a slider's next strength is mixed at once: their files never change.
_kept_layers = lru_cache(maxsize=8)(_layers)


def moved(matrix: Floats, corner: tuple[int, int], factor: tuple[float, float]) -> Floats:
    """``matrix`` (2 x 3, photo to crop) for the part of the photo that begins at ``corner``, resized by ``factor``."""
    scale = np.array(factor)
    linear = matrix[:, :2]
    return np.column_stack([linear / scale, matrix[:, 2] + linear @ (np.array(corner) + 0.5 / scale - 0.5)])


def crop(folder: Path, face: Face, number: int, strength: float) -> NDArray[np.uint8]:
    """The aligned face as restoration ``number`` shows it, at a strength: S x S x 3."""
    after = facefiles.load_crop(folder, face.index, f"guess-{number}")
    return after if strength == 1 else _mixed(facefiles.load_crop(folder, face.index, "before"), after, strength)


def view(photo: Photo, side: int | None, path: Path) -> None:
    """Write a picture that every browser shows: a JPEG, at most ``side`` px long, with nothing of the file's EXIF."""
    width, height = photo.size
    if side is not None and max(width, height) > side:
        factor = side / max(width, height)
        size = max(1, round(width * factor)), max(1, round(height * factor))
        photo = photo.with_pixels(_resized(photo.pixels, *size), _resized(photo.alpha, *size))
    write_photo(replace(photo, cmyk=None, exif=None, xmp=None, dpi=None, options={}), path)


def _patch(folder: Path, number: int, guess: int, matrix: Floats) -> blend.Patch:
    pixels = facefiles.load_guess(folder, number, guess)
    return blend.Patch(pixels, matrix, blend.face_mask(len(pixels)))


def _strengths(faces: Mapping[int, Face]) -> dict[int, float]:
    return {index: face.strength for index, face in faces.items()}


def _touches(face: Face, area: facefiles.Box) -> bool:
    return face.region is not None and facefiles.overlap(face.region, area)


def _mixed(without: NDArray[Any], full: NDArray[Any], strength: float) -> NDArray[Any]:
    return full if strength == 1 else mixed(without, full, np.full(full.shape[:2], strength, np.float32))


def _resized(pixels: Any, width: int, height: int) -> Any:
    if pixels is None or pixels.shape[1::-1] == (width, height):
        return pixels
    smaller = width * height < pixels.shape[0] * pixels.shape[1]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LANCZOS4)
