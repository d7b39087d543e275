"""Pairs of sharp and degraded pictures from a folder: what `prefrestore degrade` does."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from prefrestore.degrade.presets import DegradationMixture, DegradationRange, get_preset
from prefrestore.degrade.synthetic import Image, degrade
from prefrestore.errors import ImageReadError, ImageWriteError, InvalidInputError, PrefRestoreError
from prefrestore.files.atomic import written_beside

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".jp2"})


@dataclass(frozen=True, kw_only=True)
class FolderReport:
    """done: names of the pairs, relative to the input folder and without suffix. failed: (file, sentence)."""

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[tuple[Path, str], ...]


def list_images(folder: Path) -> list[Path]:
    """The pictures in `folder` and below, sorted; hidden ones are left out. InvalidInputError when it is no
    folder."""
    if not folder.is_dir():
        raise InvalidInputError(f"{folder} is not a folder")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def file_seed(seed: int, name: str) -> np.random.Generator:
    """The generator of one file: depends on the seed and the file's name only, not on its place in the
    list."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])


def degrade_folder(
    source: Path,
    output: Path,
    preset: str | DegradationRange | DegradationMixture = "paper",
    *,
    seed: int = 0,
    size: int | None = None,
    skip_existing: bool = False,
    progress: Callable[[Iterable[Path]], Iterable[Path]] = iter,
) -> FolderReport:
    """Writes `output`/hq/NAME.png and `output`/lq/NAME.png for every picture under `source`, structure kept.

    hq is the target, that is the picture itself or, for an old photograph, the picture in its tone. size:
    shrink every picture to this shorter side first (area averaging; smaller ones stay). A file that cannot be
    read or written is reported and the rest goes on. progress: wraps the list of files, for a progress bar.
    Raises InvalidInputError for a folder without pictures, a bad preset, size or seed, or two pictures whose
    names differ only in their suffix.
    """
    chosen = get_preset(preset) if isinstance(preset, str) else preset
    if seed < 0:
        raise InvalidInputError(f"the seed {seed} is negative")
    if size is not None and size < 1:
        raise InvalidInputError(f"a size of {size} px is too small")
    files = [path for path in list_images(source) if not path.resolve().is_relative_to(output.resolve())]
    if not files:
        raise InvalidInputError(f"there is no picture in {source}")
    names = {path: path.relative_to(source).with_suffix("").as_posix() for path in files}
    twins = sorted(name for name, times in Counter(names.values()).items() if times > 1)
    if twins:
        raise InvalidInputError(f"{source} holds several pictures named {twins[0]}, their pairs would collide")
    done: list[str] = []
    skipped: list[str] = []
    failed: list[tuple[Path, str]] = []
    for path in progress(files):
        name = names[path]
        hq_path, lq_path = output / "hq" / f"{name}.png", output / "lq" / f"{name}.png"
        if skip_existing and hq_path.exists() and lq_path.exists():
            skipped.append(name)
            continue
        try:
            picture = _read(path)
            if size is not None:
                picture = _shrink(picture, size)
            pair = degrade(picture, chosen, file_seed(seed, name))
            # lq last: with --skip-existing a pair counts as done only when both are there.
            write_png(hq_path, pair.target)
            write_png(lq_path, pair.lq)
        except PrefRestoreError as error:
            failed.append((path, str(error)))
        else:
            done.append(name)
    return FolderReport(done=tuple(done), skipped=tuple(skipped), failed=tuple(failed))


def write_png(path: Path, image: Image) -> None:
    """uint8 H,W,3 RGB to `path`, whole or not at all; ImageWriteError names the file."""
    done, code = cv2.imencode(".png", image[..., ::-1])
    if not done:
        raise ImageWriteError(f"cannot write {path}: {image.shape[1]}x{image.shape[0]} px do not fit into PNG")
    with written_beside(path) as part:
        part.write_bytes(code.tobytes())


def _read(path: Path) -> Image:
    from PIL import Image as Pillow
    from PIL import ImageOps

    try:
        with Pillow.open(path) as opened:
            if opened.mode[0] in "IF":
                raise ImageReadError(f"{path} has {opened.mode} pixels, 8-bit colour or grey is needed here")
            upright = ImageOps.exif_transpose(opened)
            return np.array(upright.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise ImageReadError(f"cannot read {path}: {error}") from error


def _shrink(picture: Image, size: int) -> Image:
    height, width = picture.shape[:2]
    if min(height, width) <= size:
        return picture
    scale = size / min(height, width)
    wanted = (max(size, round(width * scale)), max(size, round(height * scale)))
    return np.asarray(cv2.resize(picture, wanted, interpolation=cv2.INTER_AREA)).astype(np.uint8, copy=False)
