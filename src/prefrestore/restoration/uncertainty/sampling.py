"""N restorations of each face: of the face as it is, from N seeds; and, for the map, of the face moved by some pixels.

Why moved: a one-step flow that starts from the posterior mean hardly heeds its noise, so the spread over seeds says
little of where it errs. Moving the input by whole pixels, and the result back, changes nothing that was seen, only how
it falls on the encoder's grid. Where the answer then changes, the input did not settle it. This is test-time
augmentation as a measure of uncertainty (Wang et al., arXiv 1807.07356); `benchmarks/preference.py calibration`
measures both ways.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Float32 = NDArray[np.float32]

# How far a view is moved, as a share of the face's side: 4 px of 256, half a cell of an f8 encoder's grid.
MOVE = 1 / 64


@dataclass(frozen=True)
class Samples:
    """N restorations of one face."""

    images: Float32
    """N,S,S,3 in [0,1]."""
    latents: Float32
    """N,C,h,w: the scaled latents that they were decoded from."""
    views: Float32 | None = None
    """N,S,S,3 in [0,1]: the first restoration, and those of the moved face, moved back; None if not asked for."""


def draw(
    pipeline: Any,
    faces: Sequence[NDArray[Any]],
    generators: Sequence[Sequence[torch.Generator]],
    *,
    prompts: Sequence[str | None] | None = None,
    views: bool = False,
    batch_size: int = 8,
    **options: Any,
) -> list[Samples]:
    """Restore each of B aligned faces N times.

    Args:
        pipeline: a PrefRestorePipeline, or what has its ``prepare``, ``encode_semantics``, ``conditions``, ``sample``
            and ``decode``.
        faces: S,S,3 arrays of the pipeline's size, as it takes them.
        generators: N for each face; the k-th sample of a face is drawn from its k-th generator alone.
        prompts: one a face, or None.
        views: also restore the moved face: the k-th view with the k-th sample's noise.
        batch_size: restorations in one pass, at least B.
        options: for ``pipeline.sample``.

    The language model and the LQ encoder see each face once (the encoder also each view). The first samples are one
    pass of the B faces, just as an ordinary call makes it, so that they are its results to the bit.
    """
    import torch

    count = len(generators[0])
    looked = pipeline.prepare(list(faces))
    queries = pipeline.encode_semantics(looked, prompts or [None] * len(faces))
    conditions = pipeline.conditions(looked, queries=queries)
    shape = conditions.lq_latents.shape[1:]
    noise = [[torch.randn(shape, generator=one, device=one.device) for one in row] for row in generators]

    def restore(told: Any, pairs: Sequence[tuple[int, int]]) -> None:
        made = pipeline.sample(told, torch.stack([noise[index][k] for index, k in pairs]), **options)
        for (index, _), picture, latent in zip(pairs, pipeline.decode(made, told), made, strict=True):
            images[index].append(picture.permute(1, 2, 0).float().cpu().numpy())
            latents[index].append(latent.float().cpu().numpy())

    everyone = range(len(faces))
    images: list[list[Float32]] = [[] for _ in everyone]
    latents: list[list[Float32]] = [[] for _ in everyone]
    for pairs in _passes(len(faces), count, batch_size):
        restore(conditions.select(torch.tensor([index for index, _ in pairs])), pairs)
    samples = [Samples(np.stack(images[index]), np.stack(latents[index])) for index in everyone]
    if not views:
        return samples

    images, latents = [[image[0]] for image in images], [[] for _ in everyone]
    shifts = offsets(count, pipeline.face_size)
    for pairs in _passes(len(faces), count, batch_size)[1:]:
        told = pipeline.conditions(
            pipeline.prepare([moved(faces[index], *shifts[k]) for index, k in pairs]),
            queries=queries[torch.tensor([index for index, _ in pairs])],
        )
        restore(told, pairs)
    back = [[moved(seen, -x, -y) for seen, (x, y) in zip(row, shifts, strict=True)] for row in images]
    return [Samples(one.images, one.latents, np.stack(row)) for one, row in zip(samples, back, strict=True)]


def offsets(count: int, size: int) -> list[tuple[int, int]]:
    """By how many px (x, y) each of N views is moved: the first not at all, the others around a ring."""
    radius = max(1.0, MOVE * size)
    # Begun off the axes: a move along one axis only says nothing of edges that run along it.
    angles = [math.pi / 8 + 2 * math.pi * k / max(count - 1, 1) for k in range(count - 1)]
    return [(0, 0), *((round(radius * math.cos(angle)), round(radius * math.sin(angle))) for angle in angles)]


def moved(face: NDArray[Any], x: int, y: int) -> NDArray[Any]:
    """The face (H,W,3) moved by whole pixels to the right and down; what comes in at the border is its reflection."""
    height, width = face.shape[:2]
    wide = np.pad(face, ((abs(y), abs(y)), (abs(x), abs(x)), (0, 0)), mode="reflect")
    return wide[abs(y) - y : abs(y) - y + height, abs(x) - x : abs(x) - x + width]


def _passes(faces: int, count: int, batch_size: int) -> list[list[tuple[int, int]]]:
    """(face, sample) of each pass: the first samples of all faces, then the others, so many at a time."""
    others = [(index, k) for k in range(1, count) for index in range(faces)]
    at_once = max(batch_size, faces)
    return [
        [(index, 0) for index in range(faces)],
        *(others[start : start + at_once] for start in range(0, len(others), at_once)),
    ]
