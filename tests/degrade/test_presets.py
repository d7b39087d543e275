import math
from collections import Counter

import numpy as np
import pytest

from prefrestore.degrade.presets import (
    BENCH_MILD,
    BENCH_SEVERE,
    CLASSIC,
    PAPER,
    PRESETS,
    TRAINING,
    DegradationMixture,
    DegradationRange,
    get_preset,
    odd,
)
from prefrestore.errors import InvalidInputError


def test_published_numbers() -> None:
    assert (PAPER.reference_size, PAPER.blur_sigma, PAPER.kernel_size) == (512, (1, 15), 41)
    assert (PAPER.downsample, PAPER.noise, PAPER.jpeg) == ((1, 30), (0, 20), (30, 90))
    assert (CLASSIC.blur_sigma, CLASSIC.downsample) == ((0.2, 10), (1, 8))
    assert (CLASSIC.noise, CLASSIC.jpeg) == ((0, 15), (60, 100))


def test_lengths_scale_and_levels_do_not() -> None:
    half = PAPER.scaled(256)
    assert half.blur_sigma == (0.5, 7.5)
    assert half.kernel_size == 21
    assert half.downsample == (1.0, 15.0)
    assert half.noise == PAPER.noise
    assert half.jpeg == PAPER.jpeg
    assert PAPER.scaled(512) == PAPER
    double = PAPER.scaled(1024)
    assert (double.blur_sigma, double.kernel_size, double.downsample) == ((2, 30), 81, (2, 60))


def test_bench_is_the_paper_at_half_scale() -> None:
    assert (BENCH_MILD.blur_sigma, BENCH_MILD.kernel_size, BENCH_MILD.downsample) == ((0.1, 5), 21, (1, 4))
    assert BENCH_SEVERE.blur_sigma == PAPER.scaled(256).blur_sigma
    assert BENCH_SEVERE.scaled(256) == BENCH_SEVERE


@pytest.mark.parametrize(("value", "expected"), [(0.2, 1), (1, 1), (2.2, 3), (20.5, 21), (41, 41), (82, 81)])
def test_odd(value: float, expected: int) -> None:
    assert odd(value) == expected


def test_the_training_mixture_draws_by_its_weights() -> None:
    rng = np.random.default_rng(0)
    drawn = Counter(TRAINING.draw(rng).name for _ in range(4000))
    for weight, part in TRAINING.parts:
        assert abs(drawn[part.name] / 4000 - weight) < 0.03
    assert 0.22 < sum(weight * part.old_photo for weight, part in TRAINING.parts) < 0.30
    assert math.isclose(sum(weight for weight, _ in TRAINING.parts), 1.0)


def test_every_preset_has_its_name() -> None:
    assert all(get_preset(name).name == name for name in PRESETS)
    assert {"paper", "classic", "old-photo", "bench-mild", "bench-severe", "training"} <= set(PRESETS)
    with pytest.raises(InvalidInputError, match="no degradation preset 'papre'; there are paper"):
        get_preset("papre")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("blur_sigma", (0, 1)),
        ("blur_sigma", (2, 1)),
        ("blur_sigma", (1, math.inf)),
        ("blur_sigma", (math.nan, 1)),
        ("kernel_size", 40),
        ("kernel_size", -1),
        ("downsample", (0.5, 2)),
        ("noise", (-1, 2)),
        ("jpeg", (0, 50)),
        ("jpeg", (50, 101)),
        ("anisotropic", 1.5),
        ("old_photo", -0.1),
        ("spread", "normal"),
        ("reference_size", 0),
    ],
)
def test_impossible_ranges_are_refused(field: str, value: object) -> None:
    fields = {
        "name": "mine",
        "reference_size": 512,
        "blur_sigma": (1, 2),
        "kernel_size": 41,
        "downsample": (1, 2),
        "noise": (0, 1),
        "jpeg": (30, 90),
    }
    with pytest.raises(InvalidInputError, match="'mine'"):
        DegradationRange(**{**fields, field: value})


def test_mixtures_and_sizes_are_checked() -> None:
    with pytest.raises(InvalidInputError, match="do not sum to 1"):
        DegradationMixture(name="half", parts=((0.5, PAPER),))
    with pytest.raises(InvalidInputError, match="no pixels"):
        PAPER.scaled(0)
