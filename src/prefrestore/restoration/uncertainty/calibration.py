"""Does a predicted standard deviation tell where the error is? Pure functions of arrays of one shape."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefrestore.errors import InvalidInputError

Floats = NDArray[np.float64]


def ranks(values: ArrayLike) -> Floats:
    """The rank of each of n values, from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(np.ravel(values), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def rank_correlation(predicted: ArrayLike, actual: ArrayLike) -> float:
    """Spearman's coefficient, -1..1; NaN when either is the same everywhere."""
    first, second = ranks(predicted), ranks(actual)
    if len(first) != len(second):
        raise InvalidInputError(f"{len(first)} predictions came with {len(second)} errors")
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / norm if norm > 0 else float("nan")


def reliability(predicted: ArrayLike, actual: ArrayLike, bins: int = 10) -> list[tuple[float, float]]:
    """(predicted, actual) root mean squares in bins of equally many values, from the least predicted to the most.

    A calibrated prediction lies on the diagonal.
    """
    first, second = np.ravel(predicted), np.ravel(actual)
    if not 1 <= bins <= len(first):
        raise InvalidInputError(f"{len(first)} values do not fill {bins} bins")
    order = np.argsort(first, kind="stable")
    return [(_rms(first[part]), _rms(second[part])) for part in np.array_split(order, bins)]


def _rms(values: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))
