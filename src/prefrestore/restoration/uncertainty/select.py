"""Which of N restorations is shown."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefrestore.errors import InvalidInputError


def medoid(distances: ArrayLike) -> int:
    """The sample with the least mean distance to the others, from the N,N matrix; of equals, the first.

    Unlike the mean picture, which is blurred wherever the samples differ, it is one of the samples.
    """
    matrix = np.asarray(distances, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise InvalidInputError(f"a matrix of distances is N x N, not {matrix.shape}")
    return int(np.argmin(matrix.sum(axis=1)))


def highest(scores: ArrayLike) -> int:
    """The sample with the highest score, from N of them; NaN (not scored) never wins; of equals, the first.

    Raises:
        InvalidInputError: none has a score.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or np.isnan(values).all():
        raise InvalidInputError("none of the samples has a score")
    return int(np.nanargmax(values))


def joined(*matrices: ArrayLike) -> NDArray[np.float64]:
    """The sum of N,N matrices of distances of different kinds, each divided by its own mean: all weigh the same.

    A matrix of zeros (the samples do not differ in this respect) adds nothing.
    """
    values = [np.asarray(matrix, dtype=np.float64) for matrix in matrices]
    return np.sum([matrix / matrix.mean() if matrix.any() else matrix for matrix in values], axis=0)
