"""Which faces these are: hashes over everything of a set that reaches training, so that a changed picture is seen."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prefrestore.data.faces import FaceSet
from prefrestore.data.mix import FaceMix
from prefrestore.data.shards import ShardedFaces
from prefrestore.files.fingerprints import digest


def face_identity(faces: FaceSet | FaceMix | ShardedFaces) -> str:
    """sha256 over ids, pictures, captions, points, persons, sources and how often each is drawn.

    Of shards, which may be terabytes, it is over names, sizes and times of change: their bytes are not read.
    """
    if isinstance(faces, ShardedFaces):
        return digest(_listing([shard.path for shard in faces.shards]))
    if isinstance(faces, FaceMix):
        shares = [None if share is None else _array_hash(share) for share in faces.shares]
        return digest([[face_identity(part) for part in faces.sets], list(faces.weights), shares])
    told: list[Any] = [faces.ids, faces.captions, faces.persons, faces.sources, faces.split, faces.synthetic]
    told += [faces.phrases] if faces.phrases else []
    return digest([*told, _array_hash(faces.points), _array_hash(faces.images)])


def _listing(files: Sequence[Path]) -> list[list[object]]:
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _array_hash(values: np.ndarray) -> str:
    hashed = hashlib.sha256(f"{values.dtype} {values.shape}".encode())
    for row in values:
        hashed.update(np.ascontiguousarray(row).tobytes())
    return hashed.hexdigest()
