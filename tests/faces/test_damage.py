"""Hard edges of blocks and strokes are not detail, and neither is grain."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from prefrestore.degrade.synthetic import add_noise, jpeg, to_uint8
from prefrestore.faces import align, damage, quality
from prefrestore.restoration.rules import OWN_EDGES


@pytest.fixture(scope="module")
def portrait() -> Any:
    astronaut = pytest.importorskip("skimage.data").astronaut()
    points = np.array([[197, 113], [240, 113], [220, 138], [201, 157], [241, 156.0]])
    return align.crop_face(astronaut, align.estimate_similarity(points, align.ffhq_template(256)), 256)


def strokes(face: Any, *, many: int = 25, blur: float = 3) -> Any:
    rng = np.random.default_rng(0)
    out = np.ascontiguousarray(cv2.GaussianBlur(face, (0, 0), blur))
    for _ in range(many):
        x0, y0, x1, y1 = (int(value) for value in rng.integers(0, len(face), 4))
        cv2.line(out, (x0, y0), (x1, y1), (int(rng.choice([20, 230, 255])),) * 3, int(rng.integers(1, 3)))
    return out


def mosaic(face: Any, cell: int) -> Any:
    count = round(len(face) / cell)
    small = cv2.resize(face, (count, count), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, face.shape[1::-1], interpolation=cv2.INTER_NEAREST)


DAMAGES: dict[str, Callable[[Any], Any]] = {
    "strokes": strokes,
    "mosaic 8": lambda face: mosaic(face, 8),
    "mosaic 12": lambda face: mosaic(face, 12),
    "JPEG 5": lambda face: jpeg(face, 5),
    "JPEG 10": lambda face: jpeg(face, 10),
    "grain": lambda face: jpeg(to_uint8(add_noise(face.astype(np.float32), 15, np.random.default_rng(0))), 60),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_no_sharpness(portrait: Any, name: str) -> None:
    """Sharpness alone takes each of these for a face that is sharp enough."""
    made = DAMAGES[name](portrait)
    assert quality.face_quality(made) > 0.7
    assert quality.face_quality(made) * damage.own_edges(made, made) * damage.naturalness(made) < 0.3
    assert name == "grain" or damage.own_edges(made, made) < OWN_EDGES


def test_a_good_photo_has_no_damage(portrait: Any) -> None:
    kept = [portrait, jpeg(portrait, 90), cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY)]
    assert [damage.own_edges(face, face) * damage.naturalness(face) for face in kept] == [1, 1, 1]


def test_blocks_are_found_by_their_period_alone() -> None:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (64, 80)).astype(np.uint8)
    assert damage.blockiness(noise) < 1.5
    for phase in (0, 3):
        steps = (np.indices((64, 80)) + phase) // 8 % 2 * 100
        assert damage.blockiness((noise // 8 + steps.max(0)).astype(np.uint8)) > 5
    nothing = np.full((64, 64), 7, np.uint8)
    assert damage.blockiness(nothing) == 1 and damage.detail_spread(nothing) == 1
    assert damage.aligned_edges(nothing) == 0


@pytest.mark.parametrize("cell", [6, 8, 12])
def test_the_cells_of_a_mosaic_are_measured(portrait: Any, cell: int) -> None:
    assert damage.mosaic_cell(mosaic(portrait, cell)) == pytest.approx(cell, rel=0.15)
    assert damage.mosaic_cell(mosaic(portrait, cell)[..., 1]) == pytest.approx(cell, rel=0.15)


def test_other_pictures_are_no_mosaics(portrait: Any) -> None:
    blurred = cv2.GaussianBlur(portrait, (0, 0), 6)
    flat = np.full((64, 64, 3), 9, np.uint8)
    for made in (portrait, blurred, strokes(portrait), jpeg(portrait, 5), jpeg(portrait, 30), portrait[:20, :20], flat):
        assert damage.mosaic_cell(made) == 0
