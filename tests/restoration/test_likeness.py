"""Weak likeness lowers the strength, no further than it must."""

from typing import Any

import numpy as np
import pytest

from prefrestore.restoration.likeness import STEPS, keep, least_likeness


def at(share: float) -> Any:
    return np.full((4, 4, 3), round(100 * share), np.uint8)


def alike(lost: float) -> Any:
    """At full strength 1 - lost, the same face at none."""
    return lambda face: 1 - lost * float(face[0, 0, 0]) / 100


@pytest.mark.parametrize(
    ("quality", "lost", "share"),
    [(0.25, 0.1, 1), (0.25, 0.7, 0.75), (0.25, 1.2, 0.5), (0.25, 2.0, 0.25), (0.6, 2.0, 0)],
)
def test_the_greatest_share_that_is_alike_enough(quality: float, lost: float, share: float) -> None:
    kept = keep(quality, at, alike(lost))
    assert kept.share == share
    assert kept.similarity >= least_likeness(quality)
    if share < 1:
        more = STEPS[STEPS.index(share) - 1]
        assert alike(lost)(at(more)) < least_likeness(quality)


def test_a_ruined_face_owes_less_than_a_good_one() -> None:
    owed = [least_likeness(quality) for quality in np.linspace(0, 1, 50)]
    assert owed == sorted(owed) and owed[0] < 0.1 and owed[-1] > 0.5
