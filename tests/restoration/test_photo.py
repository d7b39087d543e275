"""A whole photo, with a stand-in for the pipeline that does something plain to each face."""

from typing import Any

import numpy as np
import pytest
from stand_ins import TWO, Detector, Pipeline, face_at, scene, sharpen, touched

from prefrestore.errors import InvalidInputError
from prefrestore.restoration.photo import RestoreOptions, restore_photo


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_outside_the_masks_are_the_input_s_own(dtype: Any, channels: int) -> None:
    pixels = scene(channels=channels, dtype=dtype)
    result = restore_photo(pixels, Pipeline(sharpen), detector=TWO)
    assert result.image.dtype == dtype and result.image.shape == pixels.shape
    assert len(result.restored) == 2
    mask = touched(pixels, TWO.faces)
    np.testing.assert_array_equal(result.image[~mask], pixels[~mask])
    assert (result.image[mask] != pixels[mask]).any()


@pytest.mark.parametrize("shift", [(0, 0, 0), (20, 20, 20), (20, -10, 15)])
def test_nothing_done_and_shifted_colours_both_look_like_the_input(shift: tuple[int, int, int]) -> None:
    pixels = scene()
    result = restore_photo(pixels, Pipeline(lambda face: face + np.array(shift) / 255), detector=TWO)
    difference = np.abs(result.image.astype(int) - pixels)
    assert difference.max() <= 8 and difference.mean() < 0.3


def test_skipped_faces_stay_and_say_why() -> None:
    pixels = scene()
    small = face_at(30, 30, 12)
    result = restore_photo(pixels, Pipeline(sharpen), detector=Detector(small, face_at(150, 80, 50)))
    assert [face.status for face in result.faces] == ["skipped", "restored"]
    assert "too small" in (result.faces[0].reason or "") and result.faces[0].after is None
    mask = touched(pixels, [face_at(150, 80, 50)])
    np.testing.assert_array_equal(result.image[~mask], pixels[~mask])
    forced = restore_photo(pixels, Pipeline(sharpen), detector=Detector(small), options=RestoreOptions(faces=[0]))
    assert len(forced.restored) == 1


def test_no_face_leaves_the_photo_alone() -> None:
    pixels = scene()
    pipeline = Pipeline(sharpen)
    result = restore_photo(pixels, pipeline, detector=Detector())
    np.testing.assert_array_equal(result.image, pixels)
    assert result.faces == () and pipeline.calls == []


def test_options_that_do_not_fit_the_photo() -> None:
    with pytest.raises(InvalidInputError, match="no face 2"):
        restore_photo(scene(), Pipeline(sharpen), detector=TWO, options=RestoreOptions(faces=[0, 2]))
    with pytest.raises(InvalidInputError, match="3 prompts"):
        restore_photo(scene(), Pipeline(sharpen), detector=TWO, options=RestoreOptions(prompt=["a"] * 3))
    huge = np.broadcast_to(np.uint8(0), (8000, 8000))
    with pytest.raises(InvalidInputError, match="million pixels"):
        restore_photo(huge, Pipeline(sharpen), detector=TWO, options=RestoreOptions(scale=4))


def test_a_face_cut_by_the_edge_is_left_alone_unless_it_is_named() -> None:
    pixels = scene()
    cut = Detector(face_at(4, 80, 50), face_at(150, 80, 50))
    result = restore_photo(pixels, Pipeline(sharpen), detector=cut)
    assert [(face.status, face.rule) for face in result.faces] == [("skipped", "edge"), ("restored", "default")]
    np.testing.assert_array_equal(result.image[:, :40], pixels[:, :40])
    named = restore_photo(pixels, Pipeline(sharpen), detector=cut, options=RestoreOptions(faces=[0]))
    assert named.faces[0].status == "restored" and any("edge" in said for said in named.warnings)
