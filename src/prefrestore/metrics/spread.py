"""How far N restorations of one face lie apart ("solution entropy"), as pure functions of arrays.

All take N samples of one face; a smaller number means that the samples agree. None says whether they are right: a
model that blurs has no spread either, so the numbers belong beside measures of fidelity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefrestore.errors import InvalidInputError

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]

# The least variance of a latent's number that counts, a standard deviation of 1e-6: below it, float32's rounding is
# measured. It keeps the entropy of samples without any spread finite, at -12.4 nats.
VARIANCE_FLOOR = 1e-12


def pixel_std(samples: ArrayLike) -> NDArray[np.float32]:
    """The map of the standard deviation: N,H,W,3 (or N,H,W) values -> H,W in the same unit.

    The variance has N - 1 below the line; over colours, the variances are averaged. The mean of the map is the number
    to report.
    """
    values = _several(samples)
    variance = values.var(axis=0, ddof=1, dtype=np.float64)
    return np.sqrt(variance.mean(axis=-1) if variance.ndim == 3 else variance).astype(np.float32)


def distance_matrix(items: Sequence[Any], distance: Callable[[Any, Any], float]) -> Floats:
    """N,N distances, each pair measured once; ``distance`` is symmetric and 0 between equal items."""
    result = np.zeros((len(items), len(items)))
    for first in range(len(items)):
        for second in range(first):
            result[first, second] = result[second, first] = float(distance(items[first], items[second]))
    return result


def cosine_distances(vectors: ArrayLike) -> Floats:
    """N vectors (N,D) -> N,N distances 1 - cosine, 0..2, such as those of two identities."""
    values = _several(vectors, "vectors").astype(np.float64)
    unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    distances = 1 - np.clip(unit @ unit.T, -1, 1)
    np.fill_diagonal(distances, 0)
    return distances


def pixel_distances(samples: ArrayLike) -> Floats:
    """N pictures of any shape -> N,N mean absolute differences, in the pixels' unit."""
    return distance_matrix(list(_several(samples)), lambda a, b: float(np.abs(a - b).mean(dtype=np.float64)))


def lpips_distances(model: Any, samples: Tensor) -> Floats:
    """N,N perceptual distances of N pictures (N,3,H,W) in [-1,1]; ``model``: `prefrestore.metrics.lpips.LPIPS`.

    The network sees each picture once.
    """
    import torch

    with torch.no_grad():
        features = [model.features(sample[None]) for sample in samples]
        return distance_matrix(features, lambda a, b: float(model.between(a, b)))


def pairwise_mean(distances: ArrayLike) -> float:
    """The mean distance of two different samples, from the N,N matrix of distances."""
    matrix = _several(distances, "distances")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InvalidInputError(f"a matrix of distances is N x N, not {matrix.shape}")
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))


def landmark_std(points: ArrayLike) -> float:
    """N sets of K points (N,K,2) -> the root of the mean squared distance of a point from its own mean, in their unit.

    Per point the variances of x and y (N - 1 below the line) are added; over points the variances are averaged.
    """
    values = _several(points, "sets of points")
    if values.ndim != 3 or values.shape[2] != 2:
        raise InvalidInputError(f"points are N x K x 2, not {values.shape}")
    return float(np.sqrt(values.var(axis=0, ddof=1, dtype=np.float64).sum(axis=1).mean()))


def latent_entropy(latents: ArrayLike) -> float:
    """The entropy of a Gaussian fitted to N latents (N,...), in nats for each of their p numbers.

    ``(log(2 pi e) + log det(C) / p) / 2``, where C is the sample covariance S (N - 1 below the line) shrunk towards
    the sphere of its mean variance m: ``C = (1 - r) S + r m I``. N is far below p, so S alone has no determinant. The
    share r is the oracle-approximating one (OAS: Chen, Wiesel, Eldar and Hero, "Shrinkage Algorithms for MMSE
    Covariance Estimation", arXiv 0907.4698, equation 23), made for Gaussian samples, with N - 1 for their number
    because the mean is estimated too. It needs the traces of S and S^2 only and stays defined for two samples, where
    Ledoit and Wolf's share (Journal of Multivariate Analysis, 2004) is 0. Everything comes from the N x N Gram matrix,
    whose eigenvalues are those of S but for zeros. Variances below `VARIANCE_FLOOR` count as that.

    Compare values of equal N only: a spread of few directions looks less round the more samples show it.
    """
    values = _several(latents, "latents")
    rows = values.reshape(len(values), -1).astype(np.float64)
    rows -= rows.mean(axis=0)
    freedom, size = len(rows) - 1, rows.shape[1]
    eigenvalues = np.clip(np.linalg.eigvalsh(rows @ rows.T / freedom), 0, None)
    share = _shrinkage(float(eigenvalues.sum()), float(np.square(eigenvalues).sum()), freedom, size)
    sphere = share * eigenvalues.sum() / size
    # The N - 1 directions in which the samples differ (or all p, if there are fewer), and all others.
    differing = np.sort(eigenvalues)[::-1][: min(freedom, size)]
    logarithms = np.log(np.maximum((1 - share) * differing + sphere, VARIANCE_FLOOR)).sum()
    logarithms += (size - len(differing)) * math.log(max(sphere, VARIANCE_FLOOR))
    return float(0.5 * (math.log(2 * math.pi * math.e) + logarithms / size))


def _shrinkage(trace: float, trace_of_square: float, freedom: int, size: int) -> float:
    """OAS's share of the sphere, 0..1."""
    above = (1 - 2 / size) * trace_of_square + trace**2
    below = (freedom + 1 - 2 / size) * (trace_of_square - trace**2 / size)
    return 1.0 if below <= 0 else min(max(above / below, 0.0), 1.0)


def _several(values: ArrayLike, what: str = "samples") -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim < 1 or len(array) < 2:
        raise InvalidInputError(f"a spread needs two {what} or more, not an array of shape {array.shape}")
    return array
