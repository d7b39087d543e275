from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrestore.errors import InvalidInputError
from prefrestore.faces import align, blend


def picture(height: int, width: int, channels: int = 3, dtype: Any = np.uint8, seed: int = 0) -> Any:
    """Smooth light and shade with a little noise."""
    import cv2

    rng = np.random.default_rng(seed)
    shape = (height, width, channels) if channels > 1 else (height, width)
    smooth = cv2.GaussianBlur(rng.random(shape, dtype=np.float32), (0, 0), 3)
    smooth = (smooth - smooth.min()) / max(np.ptp(smooth), 1e-6)
    return np.round(smooth * np.iinfo(dtype).max).astype(dtype)


def place(x: float, y: float, side: float, size: int = 64, angle: float = 0.0) -> Any:
    """The matrix that takes a square of the photo at (x, y) to a crop."""
    scale = size / side
    a = scale * np.exp(1j * angle)
    linear = np.array([[a.real, -a.imag], [a.imag, a.real]])
    return np.column_stack([linear, (size - 1) / 2 - linear @ (x + side / 2, y + side / 2)])


def crop(image: Any, matrix: Any, size: int = 64) -> Any:
    return align.crop_face(image, matrix, size).astype(np.float32) / np.iinfo(image.dtype).max


@given(st.integers(4, 300))
@settings(deadline=None, max_examples=30)
def test_mask_is_bounded_smooth_and_ends_before_the_border(size: int) -> None:
    mask = blend.face_mask(size)
    assert mask.shape == (size, size) and mask.dtype == np.float32
    assert mask.min() >= 0 and mask.max() <= 1
    assert not mask[0].any() and not mask[-1].any() and not mask[:, 0].any() and not mask[:, -1].any()
    np.testing.assert_allclose(mask, mask[:, ::-1], atol=1e-6)


def test_mask_holds_the_features_fully_and_fades_slowly() -> None:
    mask = blend.face_mask(256)
    points = align.ffhq_template(256).round().astype(int)
    assert (mask[points[:, 1], points[:, 0]] > 0.99).all()
    assert np.abs(np.diff(mask, axis=0)).max() < 0.08 and np.abs(np.diff(mask, axis=1)).max() < 0.08


def test_mask_needs_a_few_pixels() -> None:
    with pytest.raises(InvalidInputError):
        blend.face_mask(3)


@settings(deadline=None)
@given(st.floats(0, 1))
def test_linear_light_and_back(value: float) -> None:
    coded = np.array([value], np.float32)
    np.testing.assert_allclose(blend.to_coded(blend.to_linear(coded)), coded, atol=1e-5)


def test_middle_grey_has_a_fifth_of_the_light() -> None:
    assert blend.to_linear(np.array([0.5], np.float32))[0] == pytest.approx(0.21404, abs=1e-4)


def test_matching_a_face_with_itself_changes_nothing() -> None:
    face = picture(64, 64).astype(np.float32) / 255
    np.testing.assert_array_equal(blend.colour_match(face, face), face)


@given(st.tuples(*[st.floats(-0.08, 0.08)] * 3))
@settings(deadline=None, max_examples=20)
def test_a_colour_shift_is_taken_out(shift: Any) -> None:
    face = 0.2 + 0.6 * picture(64, 64).astype(np.float32) / 255
    shifted = face + np.array(shift, np.float32)
    np.testing.assert_allclose(blend.colour_match(shifted, face), face, atol=1e-5)


def test_matching_keeps_the_detail_of_the_restored_face() -> None:
    reference = np.full((64, 64, 3), 0.5, np.float32)
    restored = reference.copy()
    restored[::2] += 0.2
    restored[1::2] -= 0.2
    matched = blend.colour_match(restored, reference)
    np.testing.assert_allclose(matched[16:48], restored[16:48], atol=0.01)


@settings(deadline=None, max_examples=25)
@given(
    st.floats(-40, 180),
    st.floats(-40, 120),
    st.floats(20, 120),
    st.floats(-1, 1),
    st.sampled_from([(1, np.uint8), (3, np.uint8), (3, np.uint16)]),
)
def test_pixels_outside_the_mask_keep_their_bytes(x: float, y: float, side: float, angle: float, kind: Any) -> None:
    channels, dtype = kind
    image = picture(150, 200, channels, dtype)
    matrix = place(x, y, side, angle=angle)
    patch = blend.Patch(np.ones((64, 64, 3)[: image.ndim], np.float32), matrix, blend.face_mask(64))
    out = blend.paste(image, [patch])
    assert out.dtype == image.dtype and out.shape == image.shape
    untouched = blend.coverage([patch], 200, 150) == 0
    np.testing.assert_array_equal(out[untouched], image[untouched])


@settings(deadline=None, max_examples=15)
@given(st.floats(20, 100), st.floats(20, 60), st.floats(30, 80), st.floats(-1, 1))
def test_pasting_a_crop_back_gives_the_same_picture(x: float, y: float, side: float, angle: float) -> None:
    image = picture(150, 200)
    matrix = place(x, y, side, size=128, angle=angle)
    patch = blend.Patch(crop(image, matrix, 128), matrix, blend.face_mask(128))
    difference = np.abs(blend.paste(image, [patch]).astype(int) - image)
    assert difference.max() <= 12 and difference.mean() < 1


def test_mixing_is_in_linear_light() -> None:
    image = np.zeros((64, 64), np.uint8)
    mask = np.full((64, 64), 0.5, np.float32)
    patch = blend.Patch(np.ones((64, 64), np.float32), np.eye(2, 3), mask)
    assert blend.paste(image, [patch])[32, 32] == 188


def test_the_order_of_overlapping_faces_has_no_effect() -> None:
    image = picture(100, 160)
    patches = [
        blend.Patch(np.full((64, 64, 3), value, np.float32), place(x, 10, 70), blend.face_mask(64))
        for value, x in ((0.1, 20), (0.5, 55), (0.9, 75))
    ]
    expected = blend.paste(image, patches)
    for order in ((2, 1, 0), (1, 2, 0), (0, 2, 1)):
        difference = np.abs(blend.paste(image, [patches[i] for i in order]).astype(int) - expected)
        assert difference.max() <= 1


def test_tiles_leave_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(300, 300)
    matrix = place(60, 60, 170, angle=0.3)
    patch = blend.Patch(crop(picture(300, 300, seed=1), matrix), matrix, blend.face_mask(64))
    whole = blend.paste(image, [patch])
    monkeypatch.setattr(blend, "TILE", 64)
    # OpenCV 4 places samples on a grid of 1/32 px, which a tile may shift.
    assert np.abs(blend.paste(image, [patch]).astype(int) - whole).max() <= 4


def test_a_patch_outside_of_the_photo_does_nothing() -> None:
    image = picture(50, 50)
    patch = blend.Patch(np.ones((64, 64, 3), np.float32), place(500, 500, 40), blend.face_mask(64))
    np.testing.assert_array_equal(blend.paste(image, [patch]), image)
    assert not blend.coverage([patch], 50, 50).any()


def test_only_integer_pictures_are_pasted_into() -> None:
    with pytest.raises(InvalidInputError):
        blend.paste(np.zeros((4, 4), np.float32), [])
    with pytest.raises(InvalidInputError):
        blend.colour_match(np.zeros((4, 4), np.float32), np.zeros((4, 5), np.float32))
