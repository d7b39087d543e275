"""The strength of each face: exact at its ends, in linear light between them, and nothing elsewhere."""

import time
from typing import Any

import numpy as np
import pytest
from stand_ins import SIZE, TWO, Pipeline, scene, sharpen

from prefrestore.errors import InvalidInputError
from prefrestore.faces import blend
from prefrestore.restoration.photo import RestoreOptions, restore_photo
from prefrestore.restoration.strength import Layers, mixed


def patch(x: float, y: float, side: float, size: int = SIZE) -> blend.Patch:
    """A face whose crop covers the square of ``side`` px at (x, y)."""
    scale = size / side
    middle = (size - 1) / 2
    matrix = np.array([[scale, 0, middle - scale * (x + side / 2)], [0, scale, middle - scale * (y + side / 2)]])
    return blend.Patch(np.full((size, size, 3), 0.9, np.float32), matrix, blend.face_mask(size))


def layers(
    *patches: blend.Patch, height: int = 120, width: int = 200, dtype: Any = np.uint8, grey: bool = False
) -> Any:
    rng = np.random.default_rng(3)
    shape = (height, width) if grey else (height, width, 3)
    without = rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    flat = [blend.Patch(p.pixels[..., 0], p.matrix, p.mask) for p in patches] if grey else patches
    return Layers(without=without, full=blend.paste(without, flat), places=dict(enumerate(patches)))


def in_linear_light(a: Any, b: Any, share: Any) -> Any:
    """The definition, in double precision: IEC 61966-2-1 there and back."""
    levels = np.iinfo(a.dtype).max

    def light(pixels: Any) -> Any:
        coded = pixels / levels
        return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)

    mean = light(a) + share * (light(b) - light(a))
    return levels * np.where(mean <= 0.0031308, mean * 12.92, 1.055 * mean ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("grey", [False, True])
def test_exact_at_both_ends_and_linear_light_between(dtype: Any, grey: bool) -> None:
    made = layers(patch(10, 10, 90), dtype=dtype, grey=grey)
    np.testing.assert_array_equal(made.at(0), made.without)
    np.testing.assert_array_equal(made.at(1), made.full)
    half = made.at(0.5)
    assert half.dtype == dtype
    touched = made.full != made.without
    assert touched.sum() > 3000
    np.testing.assert_array_equal(half[~touched], made.without[~touched])
    wanted = in_linear_light(made.without, made.full, 0.5)
    # Half a level is rounding; what is more is float32 in place of double, in levels of 65535.
    assert np.abs(half - wanted).max() <= 0.5 + (0.05 if dtype == np.uint16 else 1e-3)
    assert made.at(0.5) is not made.full


def test_every_pair_of_levels_is_mixed_as_defined() -> None:
    a, b = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        got = mixed(a, b, np.full(a.shape, share, np.float32))
        assert np.abs(got - in_linear_light(a, b, share)).max() <= 0.5 + 1e-3


def test_each_face_has_its_own() -> None:
    made = layers(patch(0, 10, 90), patch(105, 10, 90))
    left, right = np.s_[:, :95], np.s_[:, 100:]
    got = made.at({0: 0, 1: 1})
    np.testing.assert_array_equal(got[left], made.without[left])
    np.testing.assert_array_equal(got[right], made.full[right])
    np.testing.assert_array_equal(made.at({0: 0.3}), made.at({0: 0.3, 1: 1.0}))
    np.testing.assert_array_equal(made.at({0: 0.4, 1: 0.4}), made.at(0.4))


def test_faces_that_overlap_share_their_pixels() -> None:
    made = layers(patch(20, 10, 90), patch(70, 10, 90))
    np.testing.assert_array_equal(made.at({0: 0, 1: 0}), made.without)
    np.testing.assert_array_equal(made.at({0: 0.5, 1: 0.5}), made.at(0.5))
    got = made.at({0: 0, 1: 1})
    np.testing.assert_array_equal(got[:, :70], made.without[:, :70])
    np.testing.assert_array_equal(got[:, 112:], made.full[:, 112:])
    flipped = Layers(without=made.without, full=made.full, places={1: made.places[1], 0: made.places[0]})
    np.testing.assert_array_equal(got, flipped.at({0: 0, 1: 1}))


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan"), {0: float("inf")}, {3: 0.5}])
def test_what_is_no_strength(bad: Any) -> None:
    with pytest.raises(InvalidInputError):
        layers(patch(10, 10, 90)).at(bad)


def test_only_the_faces_cost_time() -> None:
    """Twelve megapixels, four faces of 600 px: seconds of this program alone, the least of three tries."""
    made = layers(*(patch(100 + 900 * i, 1000, 600, 256) for i in range(4)), height=3000, width=4000)
    took = []
    for value in (0.3, 0.5, 0.7):
        started = time.process_time()
        made.at(value)
        took.append(time.process_time() - started)
    assert min(took) < 0.5


def test_strength_acts_to_the_pixel() -> None:
    pixels = scene()
    loose = {"keep_likeness": False}

    def shown(**options: Any) -> Any:
        return restore_photo(pixels, Pipeline(sharpen), detector=TWO, options=RestoreOptions(**loose, **options))

    full, half, none = (shown(strength=value) for value in (1.0, 0.5, 0.0))
    np.testing.assert_array_equal(none.image, pixels)
    assert not none.restored and {face.rule for face in none.faces} == {"strength"}
    np.testing.assert_array_equal(full.image, shown().image)
    layers = Layers(without=pixels, full=full.image, places=full.patches)
    np.testing.assert_array_equal(half.image, layers.at(0.5))
    low, high = np.minimum(pixels, full.image), np.maximum(pixels, full.image)
    assert ((half.image >= low) & (half.image <= high)).all()
    assert (half.image != pixels).any() and (half.image != full.image).any()
    one = shown(strength={0: 0.0})
    left = np.s_[:, :115]  # between the two faces
    np.testing.assert_array_equal(one.image[left], pixels[left])
    np.testing.assert_array_equal(one.image[:, 115:], full.image[:, 115:])
    assert [face.strength for face in one.faces] == [0, 1]
    with pytest.raises(InvalidInputError, match="no face 2"):
        shown(strength={2: 0.5})


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_strength_of_an_aligned_face(strength: float) -> None:
    pixels = scene(SIZE, SIZE)
    options = RestoreOptions(aligned=True, strength=strength, keep_likeness=False)
    result = restore_photo(pixels, Pipeline(sharpen), options=options)
    full = restore_photo(pixels, Pipeline(sharpen), options=RestoreOptions(aligned=True, keep_likeness=False)).image
    if strength != 0.5:
        np.testing.assert_array_equal(result.image, pixels if strength == 0 else full)
    else:
        assert (result.image != pixels).any() and (result.image != full).any()
