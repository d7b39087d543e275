"""Faces in shards, for sets too large to be decoded once: webdataset tars and parquet files, read where they lie.

The order is a pure function of (seed, position), so there is no cursor to save: an epoch goes through the shards in a
shuffled order and, inside windows of some samples, through their rows in a shuffled order. Reading is therefore almost
sequential, any step can be asked for at once, and it does not matter how many processes share the steps out.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prefrestore.data.faces import FaceSet, decode_face
from prefrestore.data.shard_files import Shard, open_shard, shard_files
from prefrestore.errors import ImageReadError, InvalidInputError

WINDOW = 1024
"""How many consecutive samples are shuffled among each other."""
BROKEN_SHARE, BROKEN_ALWAYS = 0.01, 10
"""So large a share of the samples read, or so many of them, may be broken; more is an error."""
HELD_OUT_SHARE, HELD_OUT_MOST = 0.1, 256
"""The first samples are validation faces: this share of all, and no more than so many."""
_REMEMBERED = 65_536


@lru_cache(maxsize=8)
def _shard_order(seed: int, epoch: int, shards: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, epoch, 0]).permutation(shards)


@lru_cache(maxsize=64)
def _window_order(seed: int, epoch: int, window: int, length: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, epoch, 1 + window]).permutation(length)


@dataclass(kw_only=True, eq=False)
class ShardedFaces:
    """Faces of ``size`` px from shards; rows count through all shards, the held-out ones first.

    A broken sample (unreadable, not square, a caption that is no text) is replaced by the next row that is not, with a
    warning; ``broken`` says which and why, as far as this process has met them.
    """

    shards: tuple[Shard, ...]
    size: int
    window: int = WINDOW
    broken: dict[int, str] = field(default_factory=dict)
    _stands_for: dict[int, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._starts = np.concatenate([[0], np.cumsum([len(shard) for shard in self.shards])])
        self.total = int(self._starts[-1])
        self.held_out = min(int(self.total * HELD_OUT_SHARE), HELD_OUT_MOST)
        # How many rows of each shard are trained on, and the first of them.
        self._first = np.maximum(self._starts[:-1], self.held_out)
        self._counts = np.maximum(self._starts[1:] - self._first, 0)
        if not self.total:
            raise InvalidInputError("the shards hold no picture")

    def __len__(self) -> int:
        return self.total - self.held_out

    def row_at(self, position: int, *, seed: int) -> int:
        """The row at a position of the endless order: every epoch of ``len(self)`` positions visits each row once."""
        epoch, position = divmod(position, len(self))
        window, place = divmod(position, self.window)
        begin = window * self.window
        place = begin + int(_window_order(seed, epoch, window, min(self.window, len(self) - begin))[place])
        order = _shard_order(seed, epoch, len(self.shards))
        ends = np.cumsum(self._counts[order])
        at = int(np.searchsorted(ends, place, side="right"))
        shard = order[at]
        return int(self._first[shard] + place - (ends[at] - self._counts[shard]))

    def draw(self, count: int, *, seed: int, step: int) -> npt.NDArray[np.int64]:
        """The rows of batch ``step`` of ``count``: positions ``step * count`` and the following."""
        return np.array([self.row_at(step * count + k, seed=seed) for k in range(count)], np.int64)

    def images(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """uint8 count,size,size,3 RGB. Raises ImageReadError when too many samples are broken."""
        return np.stack([self._sample(int(row))[0] for row in rows])

    def captions(
        self, rows: Sequence[int] | npt.NDArray[np.int64], rng: np.random.Generator | None = None
    ) -> list[str | None]:
        """The captions of the samples that `images` gives for these rows."""
        found: list[str | None] = []
        for row in rows:
            known = self._stands_for.get(int(row))
            found.append(self._sample(int(row))[1] if known is None else self._read(known)[1])
        return found

    def captions_to_learn_from(self, most: int = 20_000) -> list[str]:
        """The captions of the first ``most`` samples, without reading pictures: a text tokenizer's training text."""
        found: list[str | None] = []
        for shard in self.shards:
            found += shard.captions(most - len(found))
        return [caption for caption in found if caption]

    def validation(self) -> FaceSet:
        """The held-out faces (all of them where there are fewer than ten), decoded into memory."""
        rows = range(self.held_out or self.total)
        return FaceSet(
            images=self.images(rows),
            ids=tuple(f"{row:06d}" for row in rows),
            captions=tuple(self.captions(rows)),
            points=np.full((len(rows), 5, 2), np.nan, np.float32),
            persons=(None,) * len(rows),
            sources=(None,) * len(rows),
            split="val",
        )

    def _read(self, row: int) -> tuple[bytes, str | None]:
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.shards[shard].read(row - int(self._starts[shard]))

    def _sample(self, row: int) -> tuple[npt.NDArray[np.uint8], str | None]:
        """The sample at ``row``, or the next that is not broken: of the held-out rows or of the others, as ``row``."""
        low, high = (0, self.held_out) if row < self.held_out else (self.held_out, self.total)
        for further in range(high - low):
            candidate = low + (row - low + further) % (high - low)
            if candidate in self.broken:
                continue
            try:
                data, caption = self._read(candidate)
                image = decode_face(BytesIO(data), self.size, f"sample {candidate}")
            except (ImageReadError, InvalidInputError) as error:
                self._note(candidate, error)
                continue
            if len(self._stands_for) >= _REMEMBERED:
                self._stands_for.clear()
            self._stands_for[row] = candidate
            return image, caption
        raise ImageReadError("every sample of the shards is broken")

    def _note(self, row: int, error: Exception) -> None:
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        where = f"{self.shards[shard].path}, sample {row - int(self._starts[shard])}"
        self.broken[row] = f"{where}: {error}"
        allowed = max(BROKEN_ALWAYS, BROKEN_SHARE * (len(self._stands_for) + len(self.broken)))
        if len(self.broken) > allowed:
            raise ImageReadError(
                f"{len(self.broken)} samples of the shards are broken, more than one in a hundred; the latest: "
                f"{self.broken[row]}"
            )
        warnings.warn(f"left out, {self.broken[row]}", stacklevel=3)


def load_shards(roots: Sequence[Path], size: int) -> ShardedFaces:
    """The shards among files and folders, in the order given and by name inside a folder.

    Raises:
        InvalidInputError: a file is no shard, or has no picture column.
        ImageReadError: a tar or parquet file is damaged.
        MissingDependencyError: a parquet file, and pyarrow is not installed.
    """
    found = [file for root in roots for file in shard_files(root)]
    return ShardedFaces(shards=tuple(open_shard(file) for file in found), size=size)
