"""Rank correlation and reliability, against numbers worked out by hand."""

import math

import numpy as np
import pytest

from prefrestore.errors import InvalidInputError
from prefrestore.restoration.uncertainty.calibration import rank_correlation, ranks, reliability


def test_equal_values_share_their_ranks() -> None:
    assert ranks([3, 1, 3, 2, 3]).tolist() == [4, 1, 4, 2, 4]


def test_rank_correlation() -> None:
    # d = 0, 1, -1, 0: 1 - 6 * 2 / (4 * 15) = 0.8
    assert rank_correlation([1, 2, 3, 4], [10, 300, 20, 4000]) == pytest.approx(0.8)
    values = np.random.default_rng(0).random((5, 5))
    assert rank_correlation(values, np.exp(values)) == pytest.approx(1)
    assert rank_correlation(values, -values) == pytest.approx(-1)
    # Ranks 1.5, 1.5, 3 against 1, 2, 3: covariance 1.5, variances 1.5 and 2.
    assert rank_correlation([0, 0, 1], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(1.5 * 2))
    assert math.isnan(rank_correlation([1, 1], [1, 2]))


def test_reliability() -> None:
    pairs = reliability([4.0, 1, 3, 1], [8.0, 2, 6, 4], bins=2)
    assert pairs == [(1, pytest.approx(math.sqrt(10))), (pytest.approx(math.sqrt(12.5)), pytest.approx(math.sqrt(50)))]


def test_what_does_not_fit() -> None:
    with pytest.raises(InvalidInputError, match="3 predictions"):
        rank_correlation([1, 2, 3], [1, 2])
    with pytest.raises(InvalidInputError, match="bins"):
        reliability([1.0], [1.0], bins=2)
