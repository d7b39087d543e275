"""The output picture: its size, its surroundings, its colours."""

from typing import Any

import cv2
import numpy as np
import pytest
from stand_ins import SIZE, TWO, Detector, Pipeline, face_at, scene, sharpen, touched

from prefrestore.errors import InvalidInputError
from prefrestore.pictures.photo import Photo
from prefrestore.restoration.photo import RestoreOptions, restore_photo


def doubled(image: Any, factor: int) -> Any:
    return np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)


@pytest.mark.parametrize("scale", [2, 4])
def test_larger_outputs(scale: int) -> None:
    pixels = scene()
    alpha = np.full(pixels.shape[:2], 200, np.uint8)
    photo = Photo(pixels=pixels, alpha=alpha)
    result = restore_photo(photo, Pipeline(sharpen), detector=TWO, options=RestoreOptions(scale=scale))
    height, width = pixels.shape[:2]
    assert result.photo.size == (width * scale, height * scale)
    assert result.photo.alpha is not None and result.photo.alpha.shape == (height * scale, width * scale)
    plain = cv2.resize(pixels, result.photo.size, interpolation=cv2.INTER_LANCZOS4)
    mask = touched(pixels, TWO.faces, scale)
    np.testing.assert_array_equal(result.image[~mask], plain[~mask])
    assert result.compare().shape == (height * scale, 2 * width * scale + 8, 3)


def test_faces_have_more_detail_than_an_enlargement() -> None:
    """The restored crop's own pixels reach a larger output: here 35 px of the photo are 64 of the crop."""
    pixels, small = scene(), Detector(face_at(100, 80, 18))
    fine = (np.indices((SIZE, SIZE)).sum(0) % 2)[..., None] * 0.3

    def detail(scale: int) -> float:
        options = RestoreOptions(scale=scale)
        made = restore_photo(pixels, Pipeline(lambda face: face + fine - 0.15), detector=small, options=options).image
        plain = restore_photo(pixels, Pipeline(lambda face: face), detector=small, options=options).image
        return float(np.abs(made.astype(float) - plain).max())

    assert detail(4) > 2 * detail(1)


def test_a_background_model_draws_the_rest() -> None:
    pixels = scene()
    result = restore_photo(pixels, Pipeline(sharpen), detector=TWO, options=RestoreOptions(scale=2, background=doubled))
    mask = touched(pixels, TWO.faces, 2)
    np.testing.assert_array_equal(result.image[~mask], doubled(pixels, 2)[~mask])
    assert result.as_record()["background"] == {"name": "custom", "sha256": None}


@pytest.mark.parametrize("side", [16, SIZE, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_aligned_face_fills_the_output(side: int, channels: int) -> None:
    pixels = scene(side, side, channels)
    result = restore_photo(pixels, Pipeline(sharpen), options=RestoreOptions(aligned=True))
    assert result.image.shape[:2] == (max(side, SIZE),) * 2 and result.image.ndim == pixels.ndim
    assert result.faces[0].status == "restored" and result.faces[0].box == (0, 0, side, side)
    if side == SIZE:
        assert result.faces[0].before is not None
        np.testing.assert_array_equal(result.faces[0].before, result.before.rgb8())
    with pytest.raises(InvalidInputError, match="square"):
        restore_photo(pixels[:-1], Pipeline(sharpen), options=RestoreOptions(aligned=True))


@pytest.mark.parametrize("stored", ["L", "RGB"])
@pytest.mark.parametrize("scale", [1, 2])
def test_grey_stays_exactly_grey(stored: str, scale: int) -> None:
    grey = scene(channels=1)
    pixels = grey if stored == "L" else np.repeat(grey[..., None], 3, axis=2)

    def paint(face: Any) -> Any:
        return face * (1.0, 0.8, 0.6) + 0.1 * sharpen(face)

    options = RestoreOptions(scale=scale, background=lambda image, factor: doubled(image, factor) // 2 + (9, 0, 0))
    for chosen in (RestoreOptions(scale=scale), options):
        result = restore_photo(pixels, Pipeline(paint), detector=TWO, options=chosen)
        assert result.image.ndim == pixels.ndim
        if stored == "RGB":
            assert (result.image == result.image[..., :1]).all()


def test_a_toned_print_keeps_its_tone() -> None:
    grey = scene(channels=1)[..., None] / 255
    pixels = np.round(255 * grey * (1.0, 0.85, 0.6)).astype(np.uint8)
    result = restore_photo(
        pixels, Pipeline(lambda face: sharpen(face) * (0.7, 1, 1.2)), detector=TWO, options=RestoreOptions(faces=(0, 1))
    )
    ratio = result.image.astype(float) / np.maximum(result.image[..., :1], 1)
    assert np.abs(ratio - (1.0, 0.85, 0.6))[result.image[..., 0] > 60].max() < 0.06
