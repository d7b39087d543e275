from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrestore.errors import InvalidInputError
from prefrestore.faces import align

angles = st.floats(-np.pi, np.pi)
scales = st.floats(0.05, 8)
shifts = st.floats(-500, 500)


def similarity(angle: float, scale: float, x: float, y: float) -> Any:
    a = scale * np.exp(1j * angle)
    return np.array([[a.real, -a.imag, x], [a.imag, a.real, y]])


def test_template_keeps_pixel_centres() -> None:
    half, whole = align.ffhq_template(256), align.ffhq_template(512)
    np.testing.assert_allclose((whole + 0.5) / 2 - 0.5, half)
    np.testing.assert_allclose(whole, align.FFHQ_TEMPLATE_512)


@settings(deadline=None)
@given(angles, scales, shifts, shifts)
def test_similarity_is_recovered_exactly(angle: float, scale: float, x: float, y: float) -> None:
    matrix = similarity(angle, scale, x, y)
    points = align.transform_points(matrix, align.ffhq_template(512))
    found = align.estimate_similarity(align.ffhq_template(512), points)
    np.testing.assert_allclose(found, matrix, atol=1e-6 * max(scale, 1) * 512)
    assert align.similarity_scale(found) == pytest.approx(scale)


@settings(deadline=None)
@given(st.lists(st.tuples(shifts, shifts), min_size=5, max_size=5))
def test_least_squares_cannot_be_improved(values: Any) -> None:
    points, template = np.array(values), align.ffhq_template(256)
    if np.ptp(points, axis=0).max() < 1:
        return
    found = align.estimate_similarity(points, template)
    error = np.sum((align.transform_points(found, points) - template) ** 2)
    rng = np.random.default_rng(0)
    for _ in range(8):
        nudge = similarity(rng.normal(0, 0.01), np.exp(rng.normal(0, 0.01)), *rng.normal(0, 1, 2))
        moved = align.transform_points(nudge, align.transform_points(found, points))
        assert np.sum((moved - template) ** 2) >= error - 1e-6


def test_mirrored_points_are_not_mirrored_back() -> None:
    template = align.ffhq_template(256)
    mirrored = template * (-1, 1) + (255, 0)
    found = align.estimate_similarity(mirrored, template)
    assert np.linalg.det(found[:, :2]) > 0


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.zeros((4, 2)), np.zeros((5, 3))])
def test_useless_points_are_refused(points: Any) -> None:
    with pytest.raises(InvalidInputError):
        align.estimate_similarity(points, align.ffhq_template(256))


@settings(deadline=None)
@given(angles, scales, shifts, shifts)
def test_inverse_takes_points_back(angle: float, scale: float, x: float, y: float) -> None:
    matrix = similarity(angle, scale, x, y)
    points = align.ffhq_template(512)
    back = align.transform_points(align.invert(matrix), align.transform_points(matrix, points))
    np.testing.assert_allclose(back, points, atol=1e-6)


@settings(deadline=None)
@given(angles, scales, st.sampled_from([2, 4]))
def test_rescaled_matrix_agrees_with_rescaled_points(angle: float, scale: float, factor: int) -> None:
    matrix = similarity(angle, scale, 3.0, -2.0)
    points = align.ffhq_template(100)
    larger = align.scale_points(points, factor)
    moved = align.transform_points(align.rescale_output(matrix, factor), larger)
    np.testing.assert_allclose(moved, align.transform_points(matrix, points), atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.15, 3), st.floats(-0.6, 0.6))
def test_crop_of_a_ramp_is_the_ramp(scale: float, angle: float) -> None:
    """A linear picture is reproduced by any correct resampling, without a shift."""
    y, x = np.mgrid[:400, :400].astype(np.float32)
    image = np.dstack([x, y])
    size = 48
    centre = np.array([200.0, 200.0])
    matrix = similarity(angle, scale, 0, 0)
    matrix[:, 2] = (size - 1) / 2 - matrix[:, :2] @ centre
    crop = align.crop_face(image, matrix, size)
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).reshape(-1, 2)
    expected = align.transform_points(align.invert(matrix), grid).reshape(size, size, 2)
    np.testing.assert_allclose(crop[4:-4, 4:-4], expected[4:-4, 4:-4], atol=0.1 + 0.1 / scale)


def test_stripes_finer_than_the_crop_turn_grey_instead_of_moire() -> None:
    image = np.zeros((1024, 1024), np.uint8)
    image[:, ::2] = 255
    matrix = np.array([[0.13, 0, 0], [0, 0.13, 0.0]])
    crop = align.crop_face(image, matrix, 128)
    assert np.abs(crop[4:-4, 4:-4].astype(float) - 127.5).max() < 20


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (3, 200, 3), (200, 2)])
def test_any_picture_can_be_cropped(dtype: Any, shape: tuple[int, ...]) -> None:
    image = np.full(shape, 7, dtype)
    for scale in (0.05, 0.5, 1.0, 20.0):
        crop = align.crop_face(image, np.array([[scale, 0, -3], [0, scale, 5.0]]), 16)
        assert crop.shape == (16, 16, *shape[2:]) and crop.dtype == dtype
        np.testing.assert_allclose(crop.astype(float), 7, atol=1e-3)


def test_beyond_the_edge_the_picture_is_mirrored() -> None:
    image = np.arange(40, dtype=np.uint8)[None].repeat(40, 0)
    crop = align.crop_face(image, np.array([[1.0, 0, 10], [0, 1.0, 0]]), 30)
    np.testing.assert_array_equal(crop[0, :10], image[0, :10][::-1])
    np.testing.assert_array_equal(crop[0, 10:], image[0, :20])


def test_very_wide_pictures_can_be_cropped() -> None:
    image = np.zeros((20, 33_000), np.uint8)
    image[:, 32_000:] = 9
    crop = align.crop_face(image, np.array([[1.0, 0, -32_500], [0, 1.0, 0]]), 16)
    assert (crop == 9).all()
