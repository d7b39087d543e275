from typing import Any

import cv2
import numpy as np
import pytest

from prefrestore.faces.tone import tone_of


@pytest.fixture(scope="module")
def photo() -> Any:
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.random((200, 300, 3), dtype=np.float32), (0, 0), 8)
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    return np.round(smooth * 255).astype(np.uint8)


def sepia(photo: Any) -> Any:
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None] / 255
    return np.round(255 * np.clip(grey * (1.0, 0.86, 0.65) + (0.08, 0.04, 0.0), 0, 1)).astype(np.uint8)


def test_colour_photos_have_no_tone(photo: Any) -> None:
    assert tone_of(photo) is None


def test_grey_stays_grey(photo: Any) -> None:
    grey = np.repeat(photo[..., :1], 3, axis=2)
    tone = tone_of(grey)
    painted = tone.apply(photo.astype(np.float32) / 255)
    assert tone.curve is None
    np.testing.assert_array_equal(painted[..., 0], painted[..., 1])
    np.testing.assert_array_equal(painted[..., 0], painted[..., 2])


@pytest.mark.parametrize("quality", [None, 75])
def test_sepia_stays_sepia(photo: Any, quality: int | None) -> None:
    toned = sepia(photo)
    if quality:
        coded = cv2.imencode(".jpg", toned[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        toned = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]
    tone = tone_of(toned)
    assert tone is not None
    original = sepia(photo).astype(np.float32) / 255
    painted = original + np.array((-0.05, 0.02, 0.1), np.float32)
    luma_kept = painted - (painted @ (0.299, 0.587, 0.114) - original @ (0.299, 0.587, 0.114))[..., None]
    np.testing.assert_allclose(tone.apply(luma_kept.astype(np.float32)), original, atol=0.025)


def test_a_few_pixels_are_not_enough_to_tell() -> None:
    assert tone_of(np.array([[[1, 2, 3]]], np.uint8)) is None
