import sys
from types import SimpleNamespace

import numpy as np
import pytest

from prefrestore.evaluation.evaluator import METRICS, MODELS, Evaluator, Frame, Observation, summarise
from prefrestore.metrics.landmarks import LandmarkMeter, mean_distance


def test_mean_distance() -> None:
    # Two points, moved by (3, 4) and not at all: (5 + 0) / 2.
    assert mean_distance(np.array([[0.0, 0], [9, 9]]), np.array([[3.0, 4], [9, 9]])) == 2.5


def test_missing_weights_are_said_and_left_blank(tmp_path, monkeypatch) -> None:  # noqa: ANN001
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "dlib", None)
    said: list[str] = []
    evaluator = Evaluator(said.append)
    assert {"lpips_alex", "lpips_vgg", "landmarks"} <= set(evaluator.missing)
    assert len(said) == len(evaluator.missing)
    picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    row = evaluator.measure("a", picture, picture // 2)
    assert row["lpips_alex"] is None and row["landmarks"] is None
    assert row["psnr"] is not None and row["niqe"] is not None


def row(**values: float | None) -> dict[str, float | None]:
    return dict.fromkeys((*METRICS, "fallback")) | values


def test_means_leave_out_faces_without_a_value() -> None:
    summary = summarise([
        row(psnr=20.0, landmarks=2.0, fallback=1.0),
        row(psnr=30.0, landmarks=None, fallback=0.0),
    ])  # fmt: skip
    assert summary["n"] == 2 and summary["fallbacks"] == 1
    assert summary["psnr"] == 25 and summary["n_psnr"] == 2
    assert summary["landmarks"] == 2 and summary["n_landmarks"] == 1
    assert summary["ssim"] is None and summary["n_ssim"] == 0


def test_no_face_in_the_picture_counts_as_a_fallback(shared_data) -> None:  # noqa: ANN001
    from PIL import Image

    pytest.importorskip("cv2")
    evaluator = Evaluator()
    if "identity" in evaluator.missing:
        pytest.skip(evaluator.missing["identity"])
    with Image.open(next(iter(sorted((shared_data / "bench" / "gt").iterdir())))) as image:
        truth = np.array(image.convert("RGB"))
    same = evaluator.measure("a", truth, truth)
    assert same["identity"] == pytest.approx(1, abs=1e-4) and same["fallback"] == 0
    assert evaluator.measure("a", truth, np.full_like(truth, 90))["fallback"] == 1


class Box:
    """dlib's rectangle."""

    def __init__(self, left: int, top: int, right: int, bottom: int) -> None:
        self.sides = left, top, right, bottom

    def left(self) -> int:
        return self.sides[0]

    def top(self) -> int:
        return self.sides[1]

    def right(self) -> int:
        return self.sides[2]

    def bottom(self) -> int:
        return self.sides[3]


class Shape:
    def __init__(self, points: list[tuple[float, float]]) -> None:
        self._points = points

    def parts(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(x=x, y=y) for x, y in self._points]


def test_steady_points_are_the_mean_over_neighbouring_boxes() -> None:
    asked: list[tuple[int, int, int, int]] = []

    def predict(enlarged: np.ndarray, box: Box) -> Shape:
        asked.append(box.sides)
        return Shape([(box.left(), 81.0 if box.sides == (100, 50, 200, 150) else 0.0)])

    meter = LandmarkMeter.__new__(LandmarkMeter)
    meter._predict = predict
    points = meter.steady_points(np.zeros((8, 8, 3), np.uint8), Box(100, 50, 200, 150))
    assert points.tolist() == [[100.0, 1.0]]  # the one box of 81 that jumps counts one in 81
    assert len(set(asked)) == 81 and {right - left for left, _, right, _ in asked} == {100}


def test_samples_of_one_face_share_an_alignment() -> None:
    evaluator = Evaluator(without=MODELS)
    crops: list[np.ndarray] = []

    class Embedder:
        def embed(self, picture: np.ndarray, points: np.ndarray) -> np.ndarray:
            crops.append(points)
            return np.zeros(128, np.float32)

    evaluator._faces = (None, Embedder())
    evaluator._marks = SimpleNamespace(steady_points=lambda picture, box: np.full((68, 2), float(picture.mean())))
    pictures = [np.full((8, 8, 3), value, np.uint8) for value in (10, 20)]
    seen = [Observation(None, None, {}, points=np.full((5, 2), float(place))) for place in (1, 3)]
    whole = Observation(np.zeros(128, np.float32), None, {})
    vectors, landmarks = evaluator.together(pictures, seen, Frame(pictures[0], None, "box", whole))
    assert len(vectors) == 2 and all((points == 2).all() for points in crops)
    assert [points[0, 0] for points in landmarks] == [10, 20]
    nothing = Frame(pictures[0], None, None, Observation(None, None, {}))
    assert evaluator.together(pictures, seen, nothing) == ([], [])


def test_dlibs_distance_is_to_the_true_face_inside_the_true_faces_box() -> None:
    evaluator = Evaluator(without=MODELS)
    asked: list[object] = []

    def vector(picture: np.ndarray, box: object) -> np.ndarray:
        asked.append(box)
        return np.array([picture.mean(), 0.0])

    evaluator._dlib = SimpleNamespace(box=lambda picture: int(picture.max()), vector=vector)
    truth, restored = np.full((32, 32, 3), 40, np.uint8), np.full((32, 32, 3), 43, np.uint8)
    assert evaluator.measure("a", truth, restored)["dlib"] == pytest.approx(3.0)
    assert asked == [40, 40] and evaluator.available == ("dlib",)
    assert Evaluator(without=MODELS).measure("a", truth, restored)["dlib"] is None
