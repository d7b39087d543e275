"""FID and KID against numbers worked out by hand, and the network's shape."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.metrics.distribution import frechet_distance, kernel_distance, unbiased_mmd
from prefrestore.metrics.inception import _A, _E, InceptionV3


def test_fid_of_one_feature() -> None:
    # {0, 2}: mean 1, variance 2. {3, 11}: mean 7, variance 32. (7-1)^2 + (sqrt 32 - sqrt 2)^2 = 36 + 34 - 2*8 = 54.
    assert frechet_distance(np.array([[0.0], [2]]), np.array([[3.0], [11]])) == pytest.approx(54)


def test_fid_of_covariances_that_do_not_commute() -> None:
    # Points at 0, 0 and (3, 0): covariance [[3, 0], [0, 0]].
    first = np.array([[0.0, 0], [0, 0], [3, 0]])
    # The same along the diagonal: covariance [[3, 3], [3, 3]]; C1 C2 = [[9, 9], [0, 0]], whose root has the trace 3.
    second = np.array([[0.0, 0], [0, 0], [3, 3]])
    # |m1 - m2|^2 = 1; tr C1 = 3, tr C2 = 6: 1 + 3 + 6 - 2*3 = 4.
    assert frechet_distance(first, second) == pytest.approx(4)


def test_fid_is_zero_for_equal_sets_and_symmetric() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(40, 6)), rng.normal(1, 2, (30, 6))
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first))


def test_fid_agrees_with_scipy() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(9, 5)), rng.normal(1, 2, (12, 5))
    c1, c2 = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    apart = first.mean(0) - second.mean(0)
    expected = apart @ apart + np.trace(c1 + c2 - 2 * linalg.sqrtm(c1 @ c2).real)
    assert frechet_distance(first, second) == pytest.approx(expected)


def test_mmd_by_hand() -> None:
    # One feature, kernel (x y + 1)^3. {0, 1}: k(0, 1) = 1. {1, 2}: k(1, 2) = 27.
    # Across: k(0,1) = k(0,2) = 1, k(1,1) = 8, k(1,2) = 27: mean 37/4. 1 + 27 - 2 * 37/4 = 9.5.
    assert unbiased_mmd(np.array([[0.0], [1]]), np.array([[1.0], [2]])) == pytest.approx(9.5)


def test_kid_of_whole_sets_is_one_subset_and_of_equal_distributions_is_unbiased() -> None:
    rng = np.random.default_rng(0)
    found = kernel_distance(np.array([[0.0], [1]]), np.array([[1.0], [2]]), rng=rng)
    assert found == pytest.approx((9.5, 0))
    same = [unbiased_mmd(rng.normal(size=(20, 3)), rng.normal(size=(20, 3))) for _ in range(200)]
    # Around 0 within the error of the mean of 200, and below 0 often: a biased estimate never is.
    assert abs(np.mean(same)) < 4 * np.std(same) / np.sqrt(200)
    assert np.mean(np.array(same) < 0) > 0.2


def test_kid_draws_its_subsets_from_the_generator() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(30, 4)), rng.normal(0.5, 1, (25, 4))
    runs = [kernel_distance(first, second, rng=np.random.default_rng(s), subsets=5, size=10) for s in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    assert runs[0].std > 0


@pytest.mark.parametrize("second", [np.zeros((1, 2)), np.zeros((4, 3)), np.zeros(4)])
def test_sets_that_cannot_be_compared(second: np.ndarray) -> None:
    with pytest.raises(InvalidInputError):
        frechet_distance(np.zeros((4, 2)), second)


def test_inception_has_the_published_size_and_reads_pytorch_fid_s_keys(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = InceptionV3(None)
    # torchvision's Inception v3 without its auxiliary head and classifier.
    assert sum(value.numel() for value in network.parameters()) == 21_785_568
    state = network.state_dict()
    assert {"Conv2d_1a_3x3.conv.weight", "Mixed_6e.branch7x7dbl_5.bn.running_var"} <= set(state)
    published = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    save_file(published | {"fc.weight": torch.zeros(1008, 2048)}, tmp_path / "inception.safetensors")
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    features = InceptionV3(tmp_path / "inception.safetensors").of(picture)
    assert features.shape == (2048,) and np.array_equal(features, network.of(picture))
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="does not hold"):
        InceptionV3(tmp_path / "other.safetensors")


def test_inception_pools_as_the_tensorflow_graph_does() -> None:
    ones = torch.ones(1, 4, 5, 5)
    # The average of ones is one at the border too only if the padding is left out.
    assert torch.equal(_seen(_A(4, 8), ones), ones)
    corner = torch.zeros(1, 4, 5, 5)
    corner[..., 0, 0] = 9
    assert _seen(_E(4), corner)[0, 0, 0, 0] == 9 / 4
    assert _seen(_E(4, by_maximum=True), corner)[0, 0, 1, 1] == 9


def _seen(block: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What reaches the pooling branch's convolution."""
    seen = []
    block.branch_pool = torch.nn.Identity()
    block.branch_pool.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    block(x)
    return seen[0]
