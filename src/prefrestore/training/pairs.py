"""Seeded (degraded, clean) pairs for training, and their latents and LM states, computed once and kept on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from prefrestore.data.faces import FaceSet, load_face_set
from prefrestore.data.mix import FaceMix, photographs_first
from prefrestore.data.shard_files import shard_files
from prefrestore.data.shards import ShardedFaces, load_shards
from prefrestore.degrade import degrade
from prefrestore.errors import InvalidInputError
from prefrestore.training.images import to_signed

Faces = FaceMix | ShardedFaces


def load_training_faces(roots: Sequence[Path], size: int) -> Faces:
    """What `load_training_mix` gives, or the shards among the roots: then folders beside them are for validation."""
    sharded = [root for root in roots if shard_files(Path(root))]
    return load_shards(sharded, size) if sharded else load_training_mix(roots, size)


def load_training_mix(roots: Sequence[Path], size: int, *, min_side: int = 0) -> FaceMix:
    """The training faces of every root and the drawn ones beside them, photographs of real people first.

    See `photographs_first`, and `load_face_set` for ``min_side``, which leaves out the drawn ones of ``synthetic``.

    Raises:
        InvalidInputError: no root, or shards, which only stages that need pictures and captions alone can read.
    """
    for root in roots:
        if shard_files(Path(root)):
            raise InvalidInputError(f"{root}: this stage needs folders of faces; shards are for the other stages")
    photographs = [load_face_set(root, "train", size=size, min_side=min_side) for root in roots]
    if not photographs:
        raise InvalidInputError("training needs at least one folder of faces")
    drawn = [
        load_face_set(root, "synthetic", size=size)
        for root in roots
        if min_side == 0 and (Path(root) / "faces" / "synthetic").is_dir()
    ]
    return photographs_first(photographs + drawn)


def load_validation(roots: Sequence[Path], size: int, *, min_side: int = 0) -> FaceSet:
    """The validation faces of the first folder that has any, or else its training faces; held-out ones of shards."""
    for root in roots:
        if (Path(root) / "faces" / "val").is_dir():
            return load_face_set(root, "val", size=size, min_side=min_side)
    folders = [root for root in roots if not shard_files(Path(root))]
    if not folders:
        return load_shards(roots, size).validation()
    return load_face_set(folders[0], "train", size=size, min_side=min_side)


def degraded_batch(
    faces: np.ndarray, preset: str, rng: np.random.Generator, *, mirror: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Degrade faces (B,H,W,3) uint8, mirrored half the time -> (lq, target), each (B,H,W,3) uint8."""
    lq, target = [], []
    for face in faces:
        flipped = face[:, ::-1] if mirror and rng.random() < 0.5 else face
        pair = degrade(np.ascontiguousarray(flipped), preset, rng)
        lq.append(pair.lq)
        target.append(pair.target)
    return np.stack(lq), np.stack(target)


def held_out_pairs(
    roots: Sequence[Path], size: int, count: int, degradation: str, seed: int, *, min_side: int = 0
) -> tuple[np.ndarray, np.ndarray, Sequence[str | None]]:
    """Up to ``count`` validation faces, evenly spread -> (lq, clean), each (N,H,W,3) uint8, and captions."""
    validation = load_validation(roots, size, min_side=min_side)
    chosen = validation.subset(range(0, len(validation), max(1, len(validation) // count))[:count])
    lq, clean = degraded_batch(np.asarray(chosen.images), degradation, np.random.default_rng(seed), mirror=False)
    return lq, clean, chosen.captions


def told_batch(
    faces: Faces, config: Any, step: int, *, caption_share: float, copy_share: float, captioned_copies: bool = True
) -> dict[str, Any]:
    """The batch of one step: degraded pairs, captions kept in ``caption_share``, ``copy_share`` copy tasks.

    Args:
        config: of a stage; its ``seed``, ``batch_size`` and ``degradation`` count.
        captioned_copies: whether a copy task may carry a caption.

    Returns:
        ``lq`` and ``targets`` (B,3,H,W) in [-1,1], ``captions``, and which of them are a ``copy``.
    """
    rng = np.random.default_rng([config.seed, step])
    drawn = faces.draw(config.batch_size, seed=config.seed, step=step)
    keep = rng.random(len(drawn)) < caption_share
    copy = rng.random(len(drawn)) < copy_share
    lq, targets = degraded_batch(faces.images(drawn), config.degradation, rng)
    told = keep if captioned_copies else keep & ~copy
    captions = [text if shown else None for text, shown in zip(faces.captions(drawn, rng), told, strict=True)]
    return {"lq": to_signed(lq), "targets": to_signed(targets), "captions": captions, "copy": copy.tolist()}


@dataclass(frozen=True, kw_only=True)
class LatentPairs:
    """Cached pairs: scaled LQ and clean latents (N,C,h,w), LM states (N,Q,D), all float16; the images uint8."""

    lq_latents: np.ndarray
    clean_latents: np.ndarray
    queries: np.ndarray
    targets: np.ndarray
    images: np.ndarray

    def __len__(self) -> int:
        return len(self.lq_latents)

    def batch(self, index: np.ndarray) -> dict[str, Tensor]:
        """The pairs at ``index`` as float32 tensors; both images in [-1,1]."""
        names = ("lq_latents", "clean_latents", "queries")
        tensors = {name: torch.from_numpy(getattr(self, name)[index].astype(np.float32)) for name in names}
        return tensors | {"targets": to_signed(self.targets[index]), "images": to_signed(self.images[index])}


CHUNK = 32
"""How many pairs are drawn and computed at once."""


def cached_pairs(
    folder: Path,
    count: int,
    prepare: Callable[[int, int], Any],
    compute: Callable[[Any], dict[str, np.ndarray]],
    *,
    key: dict[str, object],
    workers: int = 0,
    log: Callable[[str], None] = print,
) -> dict[str, np.ndarray]:
    """Open the cache in ``folder``, computing what is missing; a build that was stopped goes on where it was.

    Args:
        prepare: (first, last) -> what pairs first..last-1 are computed from, a pure function of its arguments.
        compute: that -> named arrays for these pairs; those that are not uint8 are kept as float16.
        key: what the contents depend on (weights' hashes, seed, preset); another key starts the cache anew.
        workers: processes that prepare ahead, while this one computes; 0 prepares here. The contents are the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "pairs.json"
    state = json.loads(record.read_text()) if record.is_file() else {}
    done = state["done"] if state.get("key") == key and state.get("count") == count else 0
    arrays: dict[str, np.memmap] = {}
    chunks = [(first, min(first + CHUNK, count)) for first in range(done, count, CHUNK)]
    for (_, last), prepared in zip(chunks, _prepared(chunks, prepare, workers), strict=True):
        for name, value in compute(prepared).items():
            stored = value if value.dtype == np.uint8 else value.astype(np.float16)
            if name not in arrays:
                path, shape = folder / f"{name}.npy", (count, *stored.shape[1:])
                mode = "r+" if done else "w+"
                arrays[name] = np.lib.format.open_memmap(path, mode=mode, dtype=stored.dtype, shape=shape)
            arrays[name][done:last] = stored
        done = last
        if done % (CHUNK * 16) == 0 or done == count:
            for array in arrays.values():
                array.flush()
            beside = record.with_suffix(".part")
            beside.write_text(json.dumps({"key": key, "count": count, "done": done, "names": list(arrays)}))
            os.replace(beside, record)
            log(f"pairs {done}/{count}")
    names = json.loads(record.read_text())["names"]
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}


class _Prepared(Dataset):
    def __init__(self, chunks: Sequence[tuple[int, int]], prepare: Callable[[int, int], Any]) -> None:
        self.chunks, self.prepare = chunks, prepare

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, index: int) -> Any:
        return self.prepare(*self.chunks[index])


def _prepared(chunks: Sequence[tuple[int, int]], prepare: Callable[[int, int], Any], workers: int) -> Iterable[Any]:
    """What ``prepare`` makes of each chunk, in order."""
    return DataLoader(
        _Prepared(chunks, prepare),
        batch_size=None,
        num_workers=min(workers, len(chunks)),
        collate_fn=_unchanged,
        worker_init_fn=_alone if workers else None,
    )


def _unchanged(value: Any) -> Any:
    return value


def _alone(worker: int) -> None:
    """One thread a worker: they share out the cores, and OpenCV's threads do not outlive a fork."""
    import cv2

    cv2.setNumThreads(0)
