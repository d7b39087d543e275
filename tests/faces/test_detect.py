import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrestore.errors import InvalidInputError
from prefrestore.faces import detect

# Counted by eye, every face of 20 px and more; hangar_grey has one more of 13 px.
COUNTED = {"garden.jpg": 67, "crowd_grey.jpg": 78, "hangar_grey.jpg": 17, "steps.jpg": 42}


@pytest.fixture(scope="module")
def detector() -> Any:
    return detect.FaceDetector()


@pytest.fixture(scope="module")
def astronaut() -> Any:
    return np.ascontiguousarray(pytest.importorskip("skimage.data").astronaut())


def overlap(face: Any, box: Any) -> Any:
    a, b = np.zeros(15), np.zeros(15)
    a[:4], b[:4] = face.box, box
    return detect._overlap(a, b)


def test_one_face_and_its_points(detector: Any, astronaut: Any) -> None:
    (face,) = detector.detect(astronaut)
    assert overlap(face, (174, 64, 94, 126)) > 0.6
    left, right, nose, *mouth = face.points
    assert left[0] < nose[0] < right[0] and max(left[1], right[1]) < nose[1] < min(m[1] for m in mouth)
    assert face.score > 0.9


@pytest.mark.parametrize("scale", [0.15, 0.3, 3.0])
def test_small_and_large_faces(detector: Any, astronaut: Any, scale: float) -> None:
    import cv2

    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(astronaut, None, fx=scale, fy=scale, interpolation=kind)
    faces = detector.detect(resized)
    assert len(faces) == 1
    assert overlap(faces[0], np.array((174, 64, 94, 126)) * scale) > 0.5


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_scan_on_its_side(detector: Any, astronaut: Any, quarters: int) -> None:
    (face,) = detector.detect(astronaut)
    turned = np.ascontiguousarray(np.rot90(astronaut, quarters))
    found = detector.detect(turned)
    assert len(found) == 1
    points = found[0].points
    for _ in range(quarters):
        points = np.stack([511 - points[:, 1], points[:, 0]], axis=1)
    assert np.abs(points - face.points).max() < 4


def test_a_face_that_blur_hides_is_found_at_a_smaller_size(detector: Any, astronaut: Any) -> None:
    import cv2

    large = cv2.resize(astronaut[:256, 96:352], (384, 384), interpolation=cv2.INTER_CUBIC)
    (face,) = detector.detect(cv2.GaussianBlur(large, (0, 0), 13.5))
    assert overlap(face, (131, 109, 120, 147)) > 0.6


@pytest.mark.parametrize(("gain", "offset"), [(0.1, 160), (0.06, 0)])
def test_faded_and_dark_faces_are_found(detector: Any, astronaut: Any, gain: float, offset: int) -> None:
    (face,) = detector.detect(np.round(astronaut * gain + offset).astype(np.uint8))
    assert overlap(face, (174, 64, 94, 126)) > 0.6 and face.score > 0.85


def test_a_large_faded_scan_is_stretched_without_copies_of_floats() -> None:
    faded = np.random.default_rng(0).integers(90, 150, (1500, 2000, 3)).astype(np.uint8)
    tracemalloc.start()
    stretched = detect._stretched(faded)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.ptp(stretched) > 240 and peak < 3 * faded.nbytes


def test_grey_pictures_and_order(detector: Any, astronaut: Any) -> None:
    grey = np.concatenate([astronaut, astronaut[:, ::-1]], axis=1)[..., 1]
    faces = detector.detect(np.ascontiguousarray(grey))
    assert len(faces) == 2
    assert faces[0].box[0] < 300 < faces[1].box[0]


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5000), (3, 40, 3), (300, 300, 3)])
def test_pictures_without_a_face(detector: Any, shape: tuple[int, ...]) -> None:
    assert detector.detect(np.full(shape, 128, np.uint8)) == []
    noise = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    assert detector.detect(noise) == []


@pytest.mark.parametrize(
    "bad", [np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5, 3), np.float32), np.zeros((0, 5), np.uint8)]
)
def test_other_arrays_are_refused(detector: Any, bad: Any) -> None:
    with pytest.raises(InvalidInputError):
        detector.detect(bad)


def test_opencv_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    detect.FaceDetector().detect(np.zeros((40, 40, 3), np.uint8))
    assert capfd.readouterr().err == ""


def test_a_cat_is_no_face(detector: Any) -> None:
    assert detector.detect(pytest.importorskip("skimage.data").chelsea()) == []


def test_thresholds_are_checked() -> None:
    with pytest.raises(InvalidInputError):
        detect.FaceDetector(threshold=1.5)


@settings(deadline=None)
@given(st.integers(1, 30_000), st.integers(1, 30_000))
def test_passes_cover_small_and_large_faces(width: int, height: int) -> None:
    scales = detect.pass_scales(width, height)
    assert scales == sorted(scales, reverse=True)
    assert max(width, height) * scales[-1] <= 2 * detect.COARSEST
    assert width * height * max(s for s in scales if s <= 1) ** 2 <= detect.LARGEST * 1.001


@settings(deadline=None)
@given(st.integers(1, 60_000))
def test_tiles_cover_everything_and_overlap(length: int) -> None:
    spans = detect._spans(length)
    assert spans[0][0] == 0 and spans[-1][1] == length
    assert len({b - a for a, b in spans}) == 1 and spans[0][1] <= detect.TILE
    assert all(before[1] - after[0] >= detect.OVERLAP - 1 for before, after in zip(spans, spans[1:], strict=False))


def test_points_must_look_like_a_face() -> None:
    box = np.array([0, 0, 100, 125.0])
    good = np.array([[30, 45], [70, 45], [50, 70], [35, 95], [65, 95.0]])
    assert detect.plausible(good, box)
    tilted = (good - 50) @ np.array([[0.8, 0.6], [-0.6, 0.8]]) + 50
    assert detect.plausible(tilted, box)
    assert not detect.plausible(good[[1, 0, 2, 4, 3]], box)
    assert not detect.plausible(np.where(np.arange(5)[:, None] == 2, [[50, 140.0]], good), box)
    assert not detect.plausible(np.full((5, 2), 50.0), box)
    assert not detect.plausible(good, np.array([0, 0, 300, 125.0]))


@pytest.mark.parametrize("name", sorted(COUNTED))
def test_every_face_of_the_group_photos(detector: Any, shared_data: Path, name: str) -> None:
    from PIL import Image

    faces = detector.detect(np.array(Image.open(shared_data / "photos" / name).convert("RGB")))
    assert sum(face.box[2] >= 20 for face in faces) == COUNTED[name]
    assert sum(face.box[2] < 20 for face in faces) <= 1
