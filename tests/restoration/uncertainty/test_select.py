"""Which sample is shown."""

import numpy as np
import pytest

from prefrestore.errors import InvalidInputError
from prefrestore.restoration.uncertainty import select


def test_the_medoid_is_in_the_middle() -> None:
    values = np.array([0.0, 10.0, 4.0, 5.0])
    assert select.medoid(np.abs(values[:, None] - values)) == 2, "sums 19, 21, 11, 11: of equals, the first"
    assert select.medoid(np.zeros((3, 3))) == 0


def test_the_highest_score_wins_and_no_score_never_does() -> None:
    assert select.highest([0.1, float("nan"), 0.3, 0.3]) == 2
    with pytest.raises(InvalidInputError, match="none"):
        select.highest([float("nan")])


def test_distances_of_two_kinds_weigh_the_same() -> None:
    near = np.array([[0.0, 1, 2], [1, 0, 1], [2, 1, 0]])
    assert select.joined(near, 1000 * near) == pytest.approx(2 * near / near.mean())
    assert select.joined(near, np.zeros((3, 3))) == pytest.approx(near / near.mean())


def test_what_is_no_matrix() -> None:
    with pytest.raises(InvalidInputError, match="N x N"):
        select.medoid(np.zeros((2, 3)))
