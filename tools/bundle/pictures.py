"""Faces as WebP of 512 px, as many and as good as fit into a number of bytes."""

from __future__ import annotations

import io
from bisect import bisect_left
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from prefrestore.errors import ImageReadError

SIDE = 512
QUALITIES = (90, 85, 80, 75, 70, 65, 60, 55, 50, 45, 40, 35, 30)
"""From best to worst; below the last faces are left out instead."""
TRIED = 24
"""Faces that a quality is estimated from."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """``files``: path of the face -> its WebP. ``quality``: of 100."""

    files: dict[Path, bytes]
    quality: int


def webp(path: Path, quality: int) -> bytes:
    """A picture, shrunk to ``SIDE`` where it is larger, never enlarged.

    Raises:
        ImageReadError: the file is damaged or no picture.
    """
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ImageReadError(f"cannot read {path}: {error}") from error
    if max(picture.size) > SIDE:
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    target = io.BytesIO()
    picture.save(target, "WEBP", quality=quality, method=4)
    return target.getvalue()


def side(path: Path) -> int:
    """The width of a picture in px. Raises ImageReadError."""
    try:
        with Image.open(path) as opened:
            return opened.width
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ImageReadError(f"cannot read {path}: {error}") from error


def best_quality(files: Sequence[Path], room: float, overhead: int) -> int:
    """The best quality at which all files fit into ``room`` bytes by the estimate of some of them, or the worst."""
    tried = files[:: max(1, len(files) // TRIED)][:TRIED]

    def fits(quality: int) -> bool:
        return float(np.mean([len(webp(path, quality)) + overhead for path in tried])) * len(files) <= room

    return QUALITIES[min(bisect_left(QUALITIES, True, key=fits), len(QUALITIES) - 1)]


def fitting(
    held_out: Sequence[Path], real: Sequence[Path], drawn: Sequence[Path], room: int, overhead: int, threads: int = 2
) -> Chosen:
    """Faces in order (held out, real, drawn) until ``room`` is full, each costing ``overhead`` more than its bytes.

    Held-out and real faces decide the quality. Within each group the order is a seeded shuffle, so that what is left
    out is no source of its own.
    """
    rng = np.random.default_rng(0)
    order = [group[k] for group in (held_out, real, drawn) for k in rng.permutation(len(group))]
    first = [*held_out, *real]
    quality = best_quality(first or list(drawn), room, overhead)
    files: dict[Path, bytes] = {}
    left = float(room)
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(order), 64):
            group = order[start : start + 64]
            for path, data in zip(group, pool.map(lambda path: webp(path, quality), group), strict=True):
                cost = len(data) + overhead
                if cost > left:
                    return Chosen(files=files, quality=quality)
                left -= cost
                files[path] = data
    return Chosen(files=files, quality=quality)
