"""Detail beyond the model's size: kept where the restoration kept what lies next to it."""

import cv2
import numpy as np
from numpy.typing import NDArray

from prefrestore.faces import blend
from prefrestore.faces.align import crop_face
from prefrestore.faces.detail import kept_detail

SIDE, LARGE = 64, 192
MATRIX = np.array([[SIDE / LARGE, 0, 0.5 * SIDE / LARGE - 0.5], [0, SIDE / LARGE, 0.5 * SIDE / LARGE - 0.5]])


def texture(side: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((side, side, 3), dtype=np.float32)


def test_all_of_it_where_nothing_changed_and_none_where_it_was_taken_out() -> None:
    seen = texture(SIDE)
    assert kept_detail(seen, seen).min() > 0.99
    assert kept_detail(cv2.GaussianBlur(seen, (0, 0), 4), seen).max() < 0.2
    assert kept_detail(texture(SIDE, seed=1), seen).mean() < 0.2
    assert kept_detail(np.full_like(seen, 0.5), np.full_like(seen, 0.5)).max() == 0


def test_drawn_stronger_is_kept_and_not_more() -> None:
    seen = texture(SIDE)
    assert kept_detail(np.float32(2) * seen, seen).max() == 1


def photo() -> NDArray[np.uint8]:
    return (texture(LARGE, seed=2) * 255).astype(np.uint8)


def test_an_unchanged_large_face_keeps_the_photo() -> None:
    """Without the detail beyond the crop, three of its four octaves would be gone."""
    image = photo()
    seen = crop_face(image, MATRIX, SIDE).astype(np.float32) / 255
    pasted = blend.paste(image, [blend.Patch(seen, MATRIX, blend.face_mask(SIDE))])
    assert np.abs(pasted.astype(int) - image).mean() < 2


def test_a_smoothed_large_face_loses_it() -> None:
    image = photo()
    smooth = cv2.GaussianBlur(crop_face(image, MATRIX, SIDE).astype(np.float32) / 255, (0, 0), 4)
    pasted = blend.paste(image, [blend.Patch(smooth, MATRIX, blend.face_mask(SIDE))])
    middle = np.s_[80:112, 80:112]
    assert pasted[middle].std() < 0.3 * image[middle].std()
