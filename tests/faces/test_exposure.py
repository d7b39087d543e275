"""Faded and dark faces: stretched for the model, and exactly back."""

from typing import Any

import cv2
import numpy as np
import pytest

from prefrestore.errors import InvalidInputError
from prefrestore.faces.exposure import FLAT, Exposure, exposure_of, luma_range


def face(contrast: float, middle: float = 0.5, size: int = 64) -> Any:
    rng = np.random.default_rng(2)
    smooth = cv2.GaussianBlur(rng.random((size, size, 3), dtype=np.float32), (0, 0), 4)
    low, high = luma_range(smooth)
    return np.clip((smooth - (low + high) / 2) / (high - low) * contrast + middle, 0, 1).astype(np.float32)


@pytest.mark.parametrize("contrast", [0.32, 0.5, 0.8])
def test_usual_faces_are_the_very_same_array(contrast: float) -> None:
    usual = face(contrast)
    found = exposure_of(usual)
    assert not found.changes and found.apply(usual) is usual and found.undo(usual, usual) is usual


@pytest.mark.parametrize(("contrast", "middle"), [(0.2, 0.5), (0.1, 0.8), (0.06, 0.04), (0.2, 0.15)])
def test_flat_and_dark_faces_get_a_usual_contrast_and_their_own_back(contrast: float, middle: float) -> None:
    flat = face(contrast, middle)
    found = exposure_of(flat)
    shown = found.apply(flat)
    low, high = luma_range(shown)
    assert 0.5 < high - low < 0.7 and 0.4 < (low + high) / 2 < 0.55
    np.testing.assert_allclose(found.undo(shown, flat), flat, atol=1e-5)
    # What the model adds comes back as faint as the face is.
    added = found.undo(np.clip(shown + 0.1, 0, 1), flat) - flat
    assert 0 < added.max() <= 0.1 / found.gain + 1e-5


def test_the_stretch_sets_in_by_degrees() -> None:
    gains = [exposure_of(face(contrast)).gain for contrast in np.linspace(FLAT + 0.02, 0.2, 60)]
    assert gains[0] == 1 and gains == sorted(gains)
    assert max(np.diff(gains)) < 0.15


def test_nothing_to_see_is_not_stretched_without_end() -> None:
    found = exposure_of(np.full((64, 64, 3), 0.5, np.float32))
    assert np.isfinite(found.gain) and found.gain <= 16
    assert Exposure() == Exposure(1.0, 0.0)
    with pytest.raises(InvalidInputError):
        exposure_of(np.zeros((4, 5, 3), np.float32))
