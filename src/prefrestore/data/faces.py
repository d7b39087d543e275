"""Sets of aligned faces: pictures, captions, landmarks and who is on them, decoded once and then mapped from
disk."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from prefrestore.errors import ImageReadError, InvalidInputError
from prefrestore.files import cache
from prefrestore.files.atomic import written_beside

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
SPLITS = ("train", "val", "synthetic")


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceSet:
    """N aligned faces.

    images: uint8 N,H,W,3 RGB, read-only, mapped from disk. ids: file names without suffix, sorted. captions:
    one sentence or None. points: float32 N,5,2 (x, y) px at this size in the order left eye, right eye, nose
    tip, left and right mouth corner as seen in the picture, NaN where unknown. persons: who is on it (one
    code a person) or None.
    sources: where it comes from, or None. synthetic: which faces a generator drew, or empty where nothing says so.
    phrases: further sentences of each face, which training may tell in the caption's place, or empty.
    """

    images: npt.NDArray[np.uint8]
    ids: tuple[str, ...]
    captions: tuple[str | None, ...]
    points: npt.NDArray[np.float32]
    persons: tuple[str | None, ...]
    sources: tuple[str | None, ...]
    split: str
    synthetic: tuple[bool, ...] = ()
    phrases: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> int:
        """Side of the square pictures in px."""
        return int(self.images.shape[1])

    def subset(self, rows: Sequence[int] | npt.NDArray[np.integer]) -> FaceSet:
        """The faces at `rows`, in that order; their pixels are copied into memory."""
        chosen = [int(row) for row in rows]
        return replace(
            self,
            images=np.asarray(self.images[chosen]),
            ids=tuple(self.ids[row] for row in chosen),
            captions=tuple(self.captions[row] for row in chosen),
            points=self.points[chosen],
            persons=tuple(self.persons[row] for row in chosen),
            sources=tuple(self.sources[row] for row in chosen),
            synthetic=tuple(self.synthetic[row] for row in chosen) if self.synthetic else (),
            phrases=tuple(self.phrases[row] for row in chosen) if self.phrases else (),
        )


def load_face_set(
    root: Path | str,
    split: str = "train",
    *,
    size: int,
    include_defects: bool = False,
    min_side: int = 0,
    cache_dir: Path | str | None = None,
) -> FaceSet:
    """The faces of one split of `root`, at `size` x `size` px.

    root: a folder with `faces.csv`, `captions.jsonl` and `faces/SPLIT/` (docs/data-card.md), or any folder of
    square, aligned face pictures: `root/SPLIT/` where there is one, else, for "train", `root` itself;
    `captions.jsonl` ({"id": file name without suffix, "caption": sentence, "phrases": [further ones]} a line, either
    of the last two) is read if it lies there.
    include_defects: faces.csv marks some training faces with a defect (mostly a mirrored border); they are
    left out unless this is set. Other splits are always whole, so that a benchmark's numbers stay comparable.
    min_side: pictures stored smaller than this, in px, are left out: enlarged, they would teach blur.
    cache_dir: where the decoded pictures are kept as .npy, keyed by the list of files (name, bytes, time) and
    `size`.

    Shrinking averages areas, enlarging is bicubic. Raises InvalidInputError (no such folder or split, no
    pictures, a picture that is not square, a damaged faces.csv or captions.jsonl) and ImageReadError, naming
    the file.
    """
    root = Path(root)
    if size < 1:
        raise InvalidInputError(f"a face size of {size} px is too small")
    table = _read_table(root / "faces.csv")
    folder = _split_folder(root, split, table is not None)
    files = sorted((p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES), key=lambda p: p.stem)
    if table is not None and split == "train" and not include_defects:
        files = [p for p in files if table.get(p.stem, {}).get("defect", "none") in ("none", "")]
    if min_side > 0:
        files = [p for p in files if _stored_side(p) >= min_side]
    if not files:
        raise InvalidInputError(f"there is no picture{f' of {min_side} px or more' if min_side else ''} in {folder}")
    ids = tuple(p.stem for p in files)
    if len(set(ids)) < len(ids):
        twin = next(name for name, following in zip(ids, ids[1:], strict=False) if name == following)
        raise InvalidInputError(f"{folder} holds several pictures named {twin}")
    told = {**_read_captions(root / "captions.jsonl"), **_read_captions(folder / "captions.jsonl")}
    phrases = tuple(told.get(name, ("",))[1:] for name in ids)
    rows = [(table or {}).get(name, {}) for name in ids]
    return FaceSet(
        images=_decoded(files, size, Path(cache_dir) if cache_dir is not None else cache.cache_dir()),
        ids=ids,
        captions=tuple(told.get(name, ("",))[0] or None for name in ids),
        points=np.stack([_points(row, size, root / "faces.csv") for row in rows]),
        persons=tuple(row.get("person") or None for row in rows),
        sources=tuple(row.get("source") or None for row in rows),
        split=split,
        synthetic=tuple(split == "synthetic" or row.get("synthetic") == "1" for row in rows) if table else (),
        phrases=phrases if any(phrases) else (),
    )


def shared_persons(first: FaceSet, second: FaceSet) -> frozenset[str]:
    """Who is in both sets, by person code and by picture id; faces of unknown persons count by their id
    only."""
    people = {p for p in first.persons if p} & {p for p in second.persons if p}
    return frozenset(people | (set(first.ids) & set(second.ids)))


def check_disjoint(first: FaceSet, second: FaceSet) -> None:
    """InvalidInputError when anyone is in both sets: a restorer measured on people it has seen is
    overrated."""
    common = sorted(shared_persons(first, second))
    if common:
        raise InvalidInputError(
            f"{len(common)} persons are in '{first.split}' and in '{second.split}', for example {common[0]}"
        )


def _split_folder(root: Path, split: str, tabled: bool) -> Path:
    if not root.is_dir():
        raise InvalidInputError(f"{root} is not a folder")
    if tabled and split not in SPLITS:
        raise InvalidInputError(f"{root} has no split '{split}'; there are {', '.join(SPLITS)}")
    folder = root / "faces" / split if tabled else root / split
    if folder.is_dir():
        return folder
    if not tabled and split == "train":
        return root
    raise InvalidInputError(f"{root} has no folder {folder.relative_to(root)} for the split '{split}'")


def _read_table(path: Path) -> dict[str, dict[str, str]] | None:
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as opened:
        reader = csv.DictReader(opened)
        missing = {"id", "split", "person", "defect", "points", "size"} - set(reader.fieldnames or ())
        if missing:
            raise InvalidInputError(f"{path} lacks the columns {', '.join(sorted(missing))}")
        return {row["id"]: row for row in reader}


def _read_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """By id: the caption, or an empty text, and behind it the phrases."""
    if not path.is_file():
        return {}
    captions: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            phrases = [] if "caption" in entry and "phrases" not in entry else list(entry["phrases"])
            captions[str(entry["id"])] = (str(entry.get("caption", "")), *map(str, phrases))
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(f"{path}, line {number}: no object with an id and a caption") from error
    return captions


def _points(row: dict[str, str], size: int, path: Path) -> npt.NDArray[np.float32]:
    text = row.get("points", "")
    if not text:
        return np.full((5, 2), np.nan, dtype=np.float32)
    try:
        points = np.array([float(word) for word in text.split()], dtype=np.float32).reshape(5, 2)
        return points * np.float32(size / int(row["size"]))
    except (ValueError, ZeroDivisionError) as error:
        raise InvalidInputError(f"{path}: {row['id']} has no five points in '{text}'") from error


def _decoded(files: Sequence[Path], size: int, cache_dir: Path) -> npt.NDArray[np.uint8]:
    listing = []
    for path in files:
        state = path.stat()
        listing.append(f"{path.name}\0{state.st_size}\0{state.st_mtime_ns}")
    key = hashlib.sha256("\n".join([*listing, f"{size} 1"]).encode()).hexdigest()[:20]
    cached = cache_dir / f"faces-{size}-{key}.npy"
    shape = (len(files), size, size, 3)
    if not cached.exists():
        with written_beside(cached) as part:
            array = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
            for index, path in enumerate(files):
                array[index] = read_face(path, size)
            array.flush()
            del array
    try:
        images = np.load(cached, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise ImageReadError(f"the cached faces {cached} are damaged; delete the file") from error
    if images.shape != shape or images.dtype != np.uint8:
        raise ImageReadError(f"the cached faces {cached} are damaged; delete the file")
    return images


def _stored_side(path: Path) -> int:
    from PIL import Image

    try:
        with Image.open(path) as opened:  # reads the header alone
            return min(opened.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageReadError(f"cannot read {path}: {error}") from error


def read_face(path: Path, size: int) -> npt.NDArray[np.uint8]:
    """One square picture as uint8 size,size,3 RGB; ImageReadError or InvalidInputError name the file."""
    return decode_face(path, size, path)


def decode_face(source: Path | BinaryIO, size: int, name: object) -> npt.NDArray[np.uint8]:
    """The same from a path or an open file; errors call it ``name``."""
    import cv2
    from PIL import Image, ImageOps

    try:
        with Image.open(source) as opened:
            pixels = np.array(ImageOps.exif_transpose(opened).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageReadError(f"cannot read {name}: {error}") from error
    if pixels.shape[0] != pixels.shape[1]:
        raise InvalidInputError(f"{name} is {pixels.shape[1]}x{pixels.shape[0]} px; an aligned face is square")
    if pixels.shape[0] != size:
        method = cv2.INTER_AREA if pixels.shape[0] > size else cv2.INTER_CUBIC
        pixels = np.asarray(cv2.resize(pixels, (size, size), interpolation=method))
    return pixels.astype(np.uint8, copy=False)
