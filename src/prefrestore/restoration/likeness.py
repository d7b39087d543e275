"""Weak likeness acts: a face that has become less alike than its degradation explains is restored less strongly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEPS = (1.0, 0.75, 0.5, 0.25, 0.0)
"""Shares of the strength that was decided, tried from the first to the last."""

# How alike (SFace cosine) a degraded face still is to its own original, by its clarity: what 95 of 100 reach (faces of
# the training set, mildly and severely degraded: `benchmarks/photos.py likeness --fit`). A restored face that is less
# alike to its degraded one than that has changed more than the damage itself did.
CLARITY = (0.0, 0.05, 0.10, 0.15, 0.25, 0.35, 0.50, 0.70)
LIKENESS = (0.10, 0.13, 0.23, 0.23, 0.40, 0.46, 0.46, 0.46)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """How strongly a face may be restored for its likeness's sake."""

    share: float
    """One of `STEPS`."""
    similarity: float
    """SFace cosine at that strength between the face before and after, -1..1."""


def least_likeness(clarity: float) -> float:
    """The similarity that a restored face owes to its input of this clarity (0..1; see `rules.FaceFacts`)."""
    return float(np.interp(clarity, CLARITY, LIKENESS))


def keep(
    clarity: float, at: Callable[[float], NDArray[np.uint8]], similarity: Callable[[NDArray[np.uint8]], float]
) -> Kept:
    """The greatest share of its strength at which a face is as alike to its input as its clarity explains.

    Args:
        at: share of the strength -> the aligned face as it would be shown, S x S x 3.
        similarity: of such a face to the input.
    """
    least = least_likeness(clarity)
    for share in STEPS[:-1]:
        alike = similarity(at(share))
        if alike >= least:
            return Kept(share=share, similarity=alike)
    return Kept(share=STEPS[-1], similarity=1.0)
