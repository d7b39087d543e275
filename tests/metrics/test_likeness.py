"""Likeness in numbers: gains and the worst group by hand, turns of the head, and light and dark skin."""

import numpy as np
import pytest

from prefrestore.metrics.likeness import compare, distances, skin_tone, turn


def test_gains_and_the_worst_group_by_hand() -> None:
    before, after = np.full(20, 0.5), np.array([0.4] * 10 + [0.55] * 10)
    found = compare(before, after, {"light": ["a"] * 10 + ["b"] * 10, "few": ["c"] * 3 + ["d"] * 17})
    assert found["gain"] == pytest.approx(0.05) and found["share"] == 0.5
    assert found["groups"][0][:2] == ("light b", 10) and found["groups"][0][2] == pytest.approx(-0.1)
    assert [name for name, _, _ in found["groups"]] == ["light b", "few d", "light a"]


def test_distances_are_euclidean() -> None:
    assert distances(np.array([[3.0, 4.0]]), np.zeros((1, 2))).tolist() == [5.0]


def test_a_turned_head_moves_the_nose_along_the_eyes() -> None:
    frontal = np.array([[40, 50], [80, 50], [60, 75], [45, 95], [75, 95]], dtype=np.float32)
    assert turn(frontal) == pytest.approx(0)
    turned = frontal + np.array([[0, 0], [0, 0], [10, 0], [0, 0], [0, 0]], dtype=np.float32)
    assert turn(turned) == pytest.approx(0.25)
    assert np.isnan(turn(np.full((5, 2), np.nan)))


def test_light_skin_has_the_larger_angle() -> None:
    light, dark = (np.full((64, 64, 3), colour, np.uint8) for colour in ((230, 200, 180), (90, 60, 45)))
    assert skin_tone(light) > 20 > skin_tone(dark)
