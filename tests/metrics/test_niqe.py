import importlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from prefrestore.errors import InvalidInputError
from prefrestore.metrics.niqe import NaturalModel, features, fit_aggd, fit_ggd, fit_model, niqe


def magnitudes(rng: np.random.Generator, shape: float, scale: float, count: int) -> np.ndarray:
    """|x| of a generalised Gaussian: (|x| / scale)^shape is gamma distributed with shape 1 / shape."""
    return scale * rng.gamma(1 / shape, size=count) ** (1 / shape)


@pytest.mark.parametrize(("shape", "scale"), [(0.8, 0.5), (1.0, 2.0), (2.0, 1.0), (4.0, 3.0)])
def test_ggd_recovers_its_parameters(shape: float, scale: float) -> None:
    rng = np.random.default_rng(0)
    values = magnitudes(rng, shape, scale, 200_000) * rng.choice([-1, 1], 200_000)
    found = fit_ggd(values)
    assert found == pytest.approx((shape, scale), rel=0.03)


@pytest.mark.parametrize(("shape", "left", "right"), [(1.0, 1.0, 2.0), (2.0, 0.5, 0.7), (1.5, 2.0, 1.0)])
def test_aggd_recovers_its_parameters(shape: float, left: float, right: float) -> None:
    rng = np.random.default_rng(1)
    # The density is continuous at 0, so each side holds its scale's share.
    count = 300_000
    is_left = rng.random(count) < left / (left + right)
    values = magnitudes(rng, shape, 1.0, count) * np.where(is_left, -left, right)
    found_shape, mean, found_left, found_right = fit_aggd(values)
    assert (found_shape, found_left, found_right) == pytest.approx((shape, left, right), rel=0.04)
    assert mean == pytest.approx(values.mean(), abs=0.02)


def test_laplace_has_shape_one() -> None:
    shape, scale = fit_ggd(np.random.default_rng(2).laplace(0, 1.5, 200_000))
    assert (shape, scale) == pytest.approx((1, 1.5), rel=0.02)


def test_flat_values_have_a_defined_fit() -> None:
    assert fit_ggd(np.zeros(100)) == (0.2, 0.0)
    assert fit_aggd(np.zeros(100)) == (0.2, 0.0, 0.0, 0.0)


def picture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.GaussianBlur(rng.uniform(0, 255, (256, 256, 3)), (0, 0), 1)


def test_features_of_each_block() -> None:
    rows, sharpness = features(picture(0))
    assert rows.shape == (16, 36) and sharpness.shape == (16,)
    assert np.isfinite(rows).all() and (sharpness > 0).all()


def test_distance_of_a_model_to_its_own_statistics() -> None:
    rows, _ = features(picture(1))
    model = NaturalModel(rows.mean(0), np.eye(36))
    assert niqe(picture(1), model) == pytest.approx(0, abs=1e-9)


def test_distance_is_mahalanobis() -> None:
    rows, _ = features(picture(1))
    own = np.cov(rows, rowvar=False)
    # The pooled covariance becomes the identity, so the distance is the length of the shift.
    shift = np.zeros(36)
    shift[[0, 5]] = 3, 4
    assert niqe(picture(1), NaturalModel(rows.mean(0) + shift, 2 * np.eye(36) - own)) == pytest.approx(5)


def test_blur_is_further_from_the_model() -> None:
    model = fit_model([picture(seed) for seed in range(4)])
    blurred = cv2.GaussianBlur(picture(9), (0, 0), 4)
    assert niqe(blurred, model) > 2 * niqe(picture(9), model)


def test_too_small_pictures() -> None:
    with pytest.raises(InvalidInputError, match="64 px"):
        niqe(np.zeros((63, 100, 3)))
    with pytest.raises(InvalidInputError, match="two blocks"):
        niqe(picture(0)[:64, :64])


def test_the_bundled_model_is_a_covariance() -> None:
    from prefrestore.metrics.niqe import face_model

    model = face_model()
    assert model.mean.shape == (36,) and model.covariance.shape == (36, 36)
    assert np.linalg.eigvalsh(model.covariance).min() > 0


def test_the_command_fits_and_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "tools"))
    main = importlib.import_module("fit_niqe").main
    folder = tmp_path / "faces"
    folder.mkdir()
    for name in ("a", "b", "made"):
        cv2.imwrite(str(folder / f"{name}.png"), picture(ord(name[0])).astype(np.uint8))
    table = tmp_path / "faces.csv"
    table.write_text("id,synthetic,defect\na,0,none\nb,0,none\nmade,1,none\n")
    target = tmp_path / "model.npz"
    assert main([str(folder), "--table", str(table), "--least", "200", "-o", str(target)]) == 0
    stored = np.load(target, allow_pickle=False)
    expected = fit_model([cv2.imread(str(folder / f"{name}.png"))[..., ::-1] for name in ("a", "b")])
    np.testing.assert_allclose(stored["mean"], expected.mean, rtol=1e-5)
