"""The measures of spread, against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from prefrestore.errors import InvalidInputError
from prefrestore.metrics import spread
from prefrestore.metrics.lpips import LPIPS

SPHERE = 0.5 * math.log(2 * math.pi * math.e)


def test_pixel_std_averages_the_variances_of_the_colours() -> None:
    samples = np.zeros((3, 1, 2, 3))
    samples[:, 0, 0, 0] = [0, 3, 6]  # variance 9 with two degrees of freedom, in one colour of three
    assert spread.pixel_std(samples) == pytest.approx(np.array([[math.sqrt(3), 0]]))
    assert spread.pixel_std(samples[..., 0]) == pytest.approx(np.array([[3, 0]]))


def test_pairwise_distances() -> None:
    matrix = spread.distance_matrix([1.0, 3.0, 7.0], lambda a, b: abs(a - b))
    assert matrix.tolist() == [[0, 2, 6], [2, 0, 4], [6, 4, 0]]
    assert spread.pairwise_mean(matrix) == pytest.approx(4)
    pictures = np.array([[0.0, 0.0], [0.2, 0.4], [0.0, 1.0]])
    assert spread.pairwise_mean(spread.pixel_distances(pictures)) == pytest.approx((0.3 + 0.5 + 0.4) / 3)


def test_identity_distances() -> None:
    matrix = spread.cosine_distances([[2, 0], [0, 5], [-1, 0]])
    assert matrix == pytest.approx(np.array([[0, 1, 2], [1, 0, 1], [2, 1, 0]]))


def test_landmark_std() -> None:
    points = np.zeros((2, 2, 2))
    points[:, 0, 0] = [0, 6]  # x of the first point: variance 18; its y and the other point stay
    points[:, 0, 1] = [0, 8]  # y: 32
    assert spread.landmark_std(points) == pytest.approx(math.sqrt((18 + 32) / 2))


def test_lpips_sees_each_picture_once_and_gives_its_own_distances() -> None:
    torch.manual_seed(0)
    model = LPIPS("alex", pretrained=False)
    pictures = torch.rand((3, 3, 40, 40), generator=torch.Generator().manual_seed(1)) * 2 - 1
    seen: list[int] = []
    features = model.features
    model.features = lambda images: seen.append(len(images)) or features(images)  # type: ignore[method-assign]
    matrix = spread.lpips_distances(model, pictures)
    assert sum(seen) == 3
    assert matrix[0, 2] == matrix[2, 0] == pytest.approx(float(model(pictures[:1], pictures[2:])), rel=1e-4)
    assert matrix[0, 2] > 0 == matrix[1, 1]


def test_the_entropy_of_two_samples_is_the_sphere_s() -> None:
    # S has the one eigenvalue (4 + 16) / 2 = 10. OAS with p = 2 and one degree of freedom:
    # (0 * 100 + 100) / ((2 - 1) * (100 - 50)) = 2, clipped to 1, so C = 5 I.
    assert spread.latent_entropy([[1.0, 2.0], [-1.0, -2.0]]) == pytest.approx(SPHERE + 0.5 * math.log(5))


def test_the_entropy_with_part_of_the_sphere() -> None:
    # Five samples on the first axis of four, S = diag(10, 0, 0, 0), four degrees of freedom:
    # r = (0.5 * 100 + 100) / (4.5 * (100 - 25)) = 4/9; C = diag(50/9 + 10/9, 10/9, 10/9, 10/9).
    samples = np.zeros((5, 2, 2))
    samples[:, 0, 0] = np.array([-2, -1, 0, 1, 2]) * 2
    expected = SPHERE + (math.log(60 / 9) + 3 * math.log(10 / 9)) / 8
    assert spread.latent_entropy(samples) == pytest.approx(expected)
    assert spread.latent_entropy(samples + 7) == pytest.approx(expected), "the mean does not matter"
    assert spread.latent_entropy(3 * samples) == pytest.approx(expected + math.log(3))


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_the_entropy_of_a_round_gaussian_in_many_dimensions(scale: float) -> None:
    samples = scale * np.random.default_rng(0).standard_normal((8, 16, 16, 16))
    assert spread.latent_entropy(samples) == pytest.approx(SPHERE + math.log(scale), abs=0.02)


def test_the_entropy_with_more_samples_than_dimensions_is_the_plain_determinant_s() -> None:
    factor = np.array([[2.0, 0, 0], [1, 1, 0], [0.5, 0, 0.5]])
    samples = np.random.default_rng(1).standard_normal((20_000, 3)) @ factor.T
    expected = SPHERE + 0.5 * np.linalg.slogdet(np.cov(samples.T))[1] / 3
    assert spread.latent_entropy(samples[:2000]) == pytest.approx(expected, abs=0.03)


def test_samples_without_spread_have_the_floor_s_entropy() -> None:
    assert spread.latent_entropy(np.ones((3, 4))) == pytest.approx(SPHERE + 0.5 * math.log(spread.VARIANCE_FLOOR))
    assert spread.pixel_std(np.ones((2, 4, 4, 3))).max() == 0


MEASURES = [spread.pixel_std, spread.landmark_std, spread.latent_entropy, spread.pairwise_mean]


@pytest.mark.parametrize("measure", MEASURES)
def test_one_sample_has_no_spread(measure: object) -> None:
    with pytest.raises(InvalidInputError, match="two"):
        measure(np.zeros((1, 4, 2)))  # type: ignore[operator]


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(InvalidInputError, match="N x N"):
        spread.pairwise_mean(np.zeros((2, 3)))
    with pytest.raises(InvalidInputError, match="N x K x 2"):
        spread.landmark_std(np.zeros((2, 5)))
