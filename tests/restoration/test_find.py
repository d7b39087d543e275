"""What the model is shown of a face."""

from typing import Any

import cv2
import numpy as np
from stand_ins import TWO, Detector, Pipeline, face_at, scene

from prefrestore.faces import align
from prefrestore.pictures.read import as_photo
from prefrestore.restoration.find import find_faces, own_detail
from prefrestore.restoration.options import RestoreOptions
from prefrestore.restoration.photo import restore_photo
from prefrestore.restoration.rules import MOST_NOISE


def test_a_faded_face_is_shown_to_the_model_with_contrast_and_stays_faded() -> None:
    faded = np.round(140 + (scene().astype(float) - 140) * 0.2).astype(np.uint8)
    seen: list[Any] = []

    def look(face: Any) -> Any:
        seen.append(np.ptp(face))
        return face

    result = restore_photo(faded, Pipeline(look), detector=TWO)
    assert min(seen) > 0.5
    assert np.abs(result.image.astype(int) - faded).max() <= 2


def test_a_mosaic_is_shown_to_the_model_without_its_cells() -> None:
    small = cv2.resize(scene(), (30, 20), interpolation=cv2.INTER_AREA)
    cells = np.repeat(np.repeat(small, 8, axis=0), 8, axis=1)
    seen: list[float] = []

    def look(face: Any) -> Any:
        seen.append(np.abs(np.diff(face, axis=1)).max())
        return face

    restore_photo(cells, Pipeline(look), detector=TWO)
    assert len(seen) == 2 and max(seen) < np.abs(np.diff(cells / 255, axis=1)).max() / 2


def test_what_is_measured_does_not_hang_on_the_size_of_the_crop() -> None:
    """Noise of 50 levels is beyond the model's learning at 512 px as at 256, and the face as sharp."""
    noise = np.random.default_rng(1).normal(0, 50, (400, 480, 3))
    pixels = (scene(400, 480) + noise).clip(0, 255).astype(np.uint8)
    detector: Any = Detector(face_at(240, 200, 120))  # 236 px across the crop
    core, octave = (
        find_faces(as_photo(pixels), pixels, detector, size, RestoreOptions())[0].facts for size in (256, 512)
    )
    assert core.noise == octave.noise > MOST_NOISE
    assert core.quality == octave.quality


def test_a_sharp_face_is_not_soft_because_it_was_turned() -> None:
    """380 px of the photo across a crop of 512: turning and enlarging it smooths what the photo shows."""
    rng = np.random.default_rng(3)
    sharp = np.full((600, 600, 3), 128, np.uint8)
    for _ in range(900):
        cv2.circle(
            sharp, rng.integers(0, 600, 2).tolist(), int(rng.integers(4, 20)), rng.integers(0, 256, 3).tolist(), -1
        )
    soft = cv2.resize(cv2.resize(sharp, (300, 300), interpolation=cv2.INTER_AREA), (600, 600))
    points = face_at(300.4, 310.7, 193, 0.2).points
    matrix = align.estimate_similarity(points, align.ffhq_template(512))
    assert own_detail(sharp, matrix, 512) == 1 > own_detail(soft, matrix, 512)
