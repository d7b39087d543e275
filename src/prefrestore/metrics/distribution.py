"""Distances between two sets of pictures, from features of a network (N x D arrays): FID and KID.

They say whether restorations look like the reference set as a whole, and nothing about any one face. FID is biased
upwards for few pictures (below some thousands); KID is not, and comes with its spread over subsets.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prefrestore.errors import InvalidInputError

Features = NDArray[np.floating]


class KernelDistance(NamedTuple):
    """mean and std: of the unbiased MMD^2 over the subsets."""

    mean: float
    std: float


def frechet_distance(first: Features, second: Features) -> float:
    """FID: ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` of two sets of features, 0 or more.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule" (NeurIPS 2017, arXiv 1706.08500), equation 6, with
    the sample covariances (divisor N - 1). The trace of the root is taken from the symmetric matrix
    ``C1^(1/2) C2 C1^(1/2)``, which has the eigenvalues of ``C1 C2``: no complex numbers arise.

    Raises:
        InvalidInputError: a set has fewer than two pictures, or the widths differ.
    """
    return moments_distance(moments(first), moments(second))


class Moments(NamedTuple):
    """The mean (D) and the sample covariance (D x D) of a set of features, which are all that FID knows of it."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


def moments(features: Features) -> Moments:
    """The moments of N x D features.

    Raises:
        InvalidInputError: fewer than two pictures, or another shape.
    """
    features, _ = _checked(features, features)
    return Moments(features.mean(0), np.atleast_2d(np.cov(features, rowvar=False)))


def moments_distance(first: Moments, second: Moments) -> float:
    """`frechet_distance` of two sets of which the moments are known.

    Raises:
        InvalidInputError: the widths differ.
    """
    if first.mean.shape != second.mean.shape:
        raise InvalidInputError(f"moments of {first.mean.size} and {second.mean.size} features cannot be compared.")
    apart = first.mean - second.mean
    root = _root(first.covariance)
    eigenvalues = np.linalg.eigvalsh(root @ second.covariance @ root)
    shared = np.sqrt(np.clip(eigenvalues, 0, None)).sum()
    distance = apart @ apart + np.trace(first.covariance) + np.trace(second.covariance) - 2 * shared
    return max(float(distance), 0.0)


def kernel_distance(
    first: Features, second: Features, *, rng: np.random.Generator, subsets: int = 100, size: int = 1000
) -> KernelDistance:
    """KID: the unbiased MMD^2 under the kernel ``(x y / D + 1)^3``, averaged over random subsets.

    Binkowski et al., "Demystifying MMD GANs" (ICLR 2018, arXiv 1801.01401), section 4. It may be below 0.

    Args:
        rng: draws the subsets, without replacement.
        subsets: how many; one is enough, and one is taken, when a subset is the whole of both sets.
        size: pictures of each set in a subset, at most what both sets have.

    Raises:
        InvalidInputError: a set has fewer than two pictures, or the widths differ.
    """
    first, second = _checked(first, second)
    size = min(size, len(first), len(second))
    if size == len(first) == len(second):
        subsets = 1
    values = [
        unbiased_mmd(first[rng.permutation(len(first))[:size]], second[rng.permutation(len(second))[:size]])
        for _ in range(subsets)
    ]
    return KernelDistance(float(np.mean(values)), float(np.std(values)))


def unbiased_mmd(first: Features, second: Features) -> float:
    """MMD^2 without the pairs of a picture with itself, under ``(x y / D + 1)^3``."""

    def kernel(a: Features, b: Features) -> NDArray[np.float64]:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Features) -> float:
        values = kernel(a, a)
        return float((values.sum() - np.trace(values)) / (len(a) * (len(a) - 1)))

    return within(first) + within(second) - 2 * float(kernel(first, second).mean())


def _checked(first: Features, second: Features) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise InvalidInputError(f"two sets of features are N x D of one D, not {first.shape} and {second.shape}.")
    if min(len(first), len(second)) < 2:
        raise InvalidInputError(f"FID and KID need two pictures or more a set, not {len(first)} and {len(second)}.")
    return first.astype(np.float64), second.astype(np.float64)


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric root of a symmetric matrix without negative eigenvalues (rounding aside)."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
