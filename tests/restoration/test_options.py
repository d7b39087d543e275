"""What a user may choose."""

from typing import Any

import pytest

from prefrestore.errors import InvalidInputError
from prefrestore.restoration.options import RestoreOptions


@pytest.mark.parametrize(
    "bad",
    [
        {"scale": 3},
        {"batch_size": 0},
        {"seed": -1},
        {"steps": 0},
        {"fidelity": 1.1},
        {"faces": [-1]},
        {"faces": "some"},
        {"fidelity": float("nan")},
        {"guidance_scale": float("nan")},
        {"guidance_scale": float("inf")},
        {"min_face": float("nan")},
        {"max_yaw": float("inf")},
        {"min_score": 1.5},
        {"sharp_enough": float("nan")},
        {"strength": float("nan")},
        {"strength": 1.5},
        {"strength": {0: -1.0}},
        {"strength": {-1: 0.5}},
    ],
)
def test_bad_options(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(bad))):
        RestoreOptions(**bad)


@pytest.mark.parametrize("name", ["scale", "steps", "seed", "batch_size", "samples", "max_pixels"])
def test_numbers_that_count_are_whole(name: str) -> None:
    for value in (2.0, True, "2"):
        with pytest.raises(InvalidInputError, match=name):
            RestoreOptions(**{name: value})
