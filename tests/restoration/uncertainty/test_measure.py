"""One face's spread as a whole: which sample is chosen, and what is said when a measure cannot be made."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefrestore.errors import WeightsError
from prefrestore.faces.align import ffhq_template
from prefrestore.faces.detect import Face
from prefrestore.faces.identity import IdentityEmbedder
from prefrestore.models import scorer
from prefrestore.restoration.uncertainty import measure as module
from prefrestore.restoration.uncertainty.measure import measure_spread
from prefrestore.restoration.uncertainty.sampling import Samples

SIZE = 64


@pytest.fixture(scope="module")
def embedder() -> IdentityEmbedder:
    return IdentityEmbedder()


@pytest.fixture(autouse=True)
def no_measuring_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path))
    forget()
    yield
    forget()


def forget() -> None:
    module._lpips.cache_clear()
    module._scorer.cache_clear()


class Detector:
    """Finds a face whose points are moved by 0, 1, 2, ... px to the right from one picture to the next."""

    def __init__(self, blind_at: int | None = None) -> None:
        self.calls, self.blind_at = 0, blind_at

    def detect(self, rgb: Any) -> list[Face]:
        self.calls += 1
        if self.calls - 1 == self.blind_at:
            return []
        own = Face((0.0, 0.0, 40.0, 40.0), ffhq_template(SIZE) + (self.calls - 1, 0), 1.0)
        return [Face((50.0, 0.0, 5.0, 5.0), np.zeros((5, 2)), 1.0), own]


def samples() -> Samples:
    """Brightness 0.3, 0.5 and 0.6: the second is the medoid."""
    images = np.stack([np.full((SIZE, SIZE, 3), value, np.float32) for value in (0.3, 0.5, 0.6)])
    return Samples(images, np.random.default_rng(0).standard_normal((3, 4, 2, 2)).astype(np.float32), images[:2])


def run(embedder: IdentityEmbedder, detector: Any, choice: Any = "medoid") -> module.FaceSpread:
    points = ffhq_template(SIZE)
    return measure_spread(samples(), [7, 8, 9], points, choice=choice, detector=detector, embedder=embedder)


def test_the_numbers(embedder: IdentityEmbedder) -> None:
    spread = run(embedder, Detector())
    assert (spread.samples, spread.chosen, spread.seed) == (3, 1, 8)
    std = np.std([0.3, 0.5, 0.6], ddof=1)
    assert spread.pixel_std_mean == pytest.approx(std, rel=1e-5) == spread.pixel_std_max
    assert spread.map is not None and spread.map.mean() == pytest.approx(np.std([0.3, 0.5], ddof=1), rel=1e-5)
    # The points of the larger face lie at x, x + 1 and x + 2 px of 64, a variance of 1.
    assert spread.landmark_std == pytest.approx(512 / SIZE)
    assert spread.lpips_distance is None
    said = spread.as_dict()
    assert said["pairwise_lpips"] is None and "prefrestore.evaluation.fetch" in said["reasons"]["pairwise_lpips"]


def test_the_first(embedder: IdentityEmbedder) -> None:
    assert run(embedder, Detector(), "first").seed == 7


def test_a_sample_without_a_face_has_no_landmarks(embedder: IdentityEmbedder) -> None:
    spread = run(embedder, Detector(blind_at=1))
    assert spread.landmark_std is None
    assert spread.reasons["landmark_std_px_512"] == "no face was found in 1 of 3 samples"


def test_the_best_is_the_scorer_s(embedder: IdentityEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "load_bundled_scorer", lambda: None)
    monkeypatch.setattr(scorer, "score_all", lambda _, pictures: pictures.mean((1, 2, 3)))
    assert run(embedder, Detector(), "best").seed == 9


def test_the_best_without_a_scorer(embedder: IdentityEmbedder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scorer, "bundled_scorer_folder", lambda: tmp_path / "scorer")
    with pytest.raises(WeightsError, match="scorer"):
        run(embedder, Detector(), "best")
