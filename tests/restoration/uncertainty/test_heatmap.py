"""The colours of an uncertainty map."""

import numpy as np
import pytest

from prefrestore.faces.blend import LUMA
from prefrestore.restoration.uncertainty import heatmap


def test_the_ramp_grows_lighter_all_the_way() -> None:
    lightness = heatmap.colours(np.linspace(0, 1, 100)) @ LUMA
    assert (np.diff(lightness) > 0).all()
    assert heatmap.colours([-1, 2]) == pytest.approx(heatmap.RAMP[[0, -1]])
    assert heatmap.colours([0.25])[0] == pytest.approx((heatmap.RAMP[1] + heatmap.RAMP[2]) / 2)


def test_no_spread_leaves_the_face_in_grey_and_more_is_hotter() -> None:
    face = np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)
    std = np.zeros((64, 64), np.float32)
    assert heatmap.overlay(face, std) == pytest.approx(np.repeat(face.mean(2, keepdims=True), 3, axis=2))
    std[:, 40:] = 2 * heatmap.HOTTEST
    hot = heatmap.overlay(face, std)
    assert (hot[:, :32, 0] == hot[:, :32, 2]).all()
    expected = (1 - heatmap.OPACITY) * face[:, 48:].mean(2, keepdims=True) + heatmap.OPACITY * heatmap.RAMP[-1]
    assert hot[:, 48:] == pytest.approx(expected, abs=1e-6)


def test_smoothing_keeps_the_mean_variance() -> None:
    std = np.zeros((65, 65), np.float32)
    std[32, 32] = 3
    smooth = heatmap.smooth_std(std, 2)
    assert float(np.square(smooth).sum()) == pytest.approx(9, rel=1e-4)
    assert smooth[32, 32] == smooth.max() < 1 and smooth[32, 30] == pytest.approx(smooth[30, 32])


@pytest.mark.parametrize("width", [16, 100, 200, 900])
def test_the_legend_is_below_the_picture_and_shows_the_whole_ramp(width: int) -> None:
    picture = np.full((50, width, 3), 7, np.uint8)
    shown = heatmap.heat_picture(picture, (width, 50))
    assert shown.shape[1] == width and shown.shape[0] > 50 and (shown[:50] == 7).all()
    strip = shown[50:]
    if width >= 200:
        for end in heatmap.RAMP[[0, -1]]:
            assert (np.abs(strip - np.round(end * 255)).max(axis=2) <= 6).any()


def test_a_picture_of_another_size() -> None:
    shown = heatmap.heat_picture(np.full((32, 32, 3), 128, np.uint8), (64, 64))
    assert shown.shape[1] == 64 and (shown[:64] == 128).all()
