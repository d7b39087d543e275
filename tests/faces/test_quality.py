from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrestore.errors import InvalidInputError
from prefrestore.faces import align, quality


@pytest.fixture(scope="module")
def portrait() -> Any:
    astronaut = pytest.importorskip("skimage.data").astronaut()
    points = np.array([[197, 113], [240, 113], [220, 138], [201, 157], [241, 156.0]])
    return align.crop_face(astronaut, align.estimate_similarity(points, align.ffhq_template(256)), 256)


def test_blur_lowers_the_quality_step_by_step(portrait: Any) -> None:
    values = [quality.face_quality(portrait)]
    values += [quality.face_quality(cv2.GaussianBlur(portrait, (0, 0), sigma)) for sigma in (1, 2, 4, 8)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.6 and values[-1] < 0.15


def test_noise_does_not_pass_for_sharpness(portrait: Any) -> None:
    blurred = cv2.GaussianBlur(portrait, (0, 0), 3).astype(float)
    noise = np.random.default_rng(0).normal(0, 12, portrait.shape)
    noisy = np.clip(blurred + noise, 0, 255).astype(np.uint8)
    assert quality.face_quality(noisy) < 0.5


@pytest.mark.parametrize("size", [64, 256, 300])
def test_flat_pictures_have_no_quality(size: int) -> None:
    assert quality.face_quality(np.full((size, size), 80, np.uint8)) == 0


def test_edge_ratio_of_a_step_is_the_formula() -> None:
    step = np.zeros((256, 256), np.uint8)
    step[:, np.arange(256) % 64 < 32] = 200
    for blur in (1.0, 2.0, 4.0):
        blurred = cv2.GaussianBlur(step, (0, 0), blur)
        expected = np.sqrt((blur**2 + 4) / (blur**2 + 1))
        assert quality.edge_ratio(blurred) == pytest.approx(expected, abs=0.12)


def test_noise_level_is_measured() -> None:
    noise = np.random.default_rng(0).normal(128, 10, (256, 256)).clip(0, 255).astype(np.uint8)
    assert quality.noise_level(noise) == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("bad", [np.zeros((4, 5), np.uint8), np.zeros((4, 4), np.float32)])
def test_other_arrays_are_refused(bad: Any) -> None:
    with pytest.raises(InvalidInputError):
        quality.face_quality(bad)


def head(yaw: float) -> Any:
    """Five points of a mean head (mm) turned by ``yaw`` degrees, seen from afar."""
    points = np.array([[-32, 0, 0], [32, 0, 0], [0, 33, 35], [-25, 65, 0], [25, 65, 0.0]])
    turn = np.radians(yaw)
    x = points[:, 0] * np.cos(turn) + points[:, 2] * np.sin(turn)
    return np.stack([x, points[:, 1]], axis=1)


@settings(deadline=None)
@given(st.floats(0, 80), st.floats(-np.pi, np.pi), st.floats(0.1, 10))
def test_yaw_is_estimated_whatever_the_tilt_and_the_size(yaw: float, tilt: float, scale: float) -> None:
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    assert quality.yaw_degrees(head(yaw) @ turn * scale) == pytest.approx(yaw, abs=1.0)


def test_yaw_of_collapsed_points() -> None:
    assert quality.yaw_degrees(np.zeros((5, 2))) == 90


def test_sharp_and_degraded_faces_are_told_apart(shared_data: Path) -> None:
    from PIL import Image

    median = {}
    for level in ("gt", "mild", "severe"):
        paths = sorted((shared_data / "bench" / level).iterdir())[:20]
        median[level] = np.median([quality.face_quality(np.array(Image.open(path).convert("RGB"))) for path in paths])
    assert median["gt"] > 0.8 > 0.5 > median["mild"] > median["severe"]


def test_fine_detail_tells_enlarged_faces_from_sharp_ones() -> None:
    sharp, rng = np.full((384, 384, 3), 120, np.uint8), np.random.default_rng(0)
    for _ in range(120):
        ends, tone = rng.integers(0, 384, 4), int(rng.integers(60, 200))
        cv2.line(sharp, ends[:2].tolist(), ends[2:].tolist(), (tone, tone, tone), int(rng.integers(3, 12)), cv2.LINE_AA)
    small = cv2.resize(sharp, (96, 96), interpolation=cv2.INTER_AREA)
    enlarged = cv2.resize(small, (384, 384), interpolation=cv2.INTER_CUBIC)
    blurred = cv2.GaussianBlur(sharp, (0, 0), 3)
    found = [quality.fine_detail(picture) for picture in (sharp, enlarged, blurred)]
    assert found == [1, 0, 0]
    assert quality.fine_detail(np.full((384, 384, 3), 90, np.uint8)) == 0
