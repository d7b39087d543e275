import sys

import numpy as np
import pytest

from prefrestore.evaluation.evaluator import METRICS, Evaluator, summarise
from prefrestore.evaluation.landmarks import mean_distance


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
