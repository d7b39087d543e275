import math

import pytest
import torch
from torch.nn import functional

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.files.cache import FETCH_COMMAND
from prefrestore.metrics.lpips import LPIPS, random_view


def images(seed: int, size: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def random_net(net: str) -> LPIPS:
    """Random but seeded weights and heads, and the global generator left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = LPIPS(net, pretrained=False)
        for head in model.heads:
            head.copy_(torch.rand_like(head))
    return model


@pytest.fixture(scope="module")
def alex() -> LPIPS:
    return random_net("alex")


def straight(model: LPIPS, x: torch.Tensor) -> list[torch.Tensor]:
    """AlexNet's five activations written out, with the published normalisation."""
    mean = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
    deviation = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    w = [(conv.weight, conv.bias) for conv in model.convs]
    one = functional.relu(functional.conv2d((x - mean) / deviation, *w[0], stride=4, padding=2))
    two = functional.relu(functional.conv2d(functional.max_pool2d(one, 3, 2), *w[1], padding=2))
    three = functional.relu(functional.conv2d(functional.max_pool2d(two, 3, 2), *w[2], padding=1))
    four = functional.relu(functional.conv2d(three, *w[3], padding=1))
    five = functional.relu(functional.conv2d(four, *w[4], padding=1))
    return [one, two, three, four, five]


def test_against_a_straight_line_computation(alex: LPIPS) -> None:
    first, second = images(0), images(1)
    expected = torch.zeros(2)
    for head, a, b in zip(alex.heads, straight(alex, first), straight(alex, second), strict=True):
        a = a / (torch.linalg.vector_norm(a, dim=1, keepdim=True) + 1e-10)
        b = b / (torch.linalg.vector_norm(b, dim=1, keepdim=True) + 1e-10)
        expected += torch.einsum("c,bchw->bhw", head, (a - b) ** 2).mean((1, 2))
    torch.testing.assert_close(alex(first, second), expected, rtol=1e-4, atol=1e-6)


def test_features_have_unit_length(alex: LPIPS) -> None:
    lengths = alex.features(images(0))[0].norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_zero_for_equal_symmetric_and_per_picture(alex: LPIPS) -> None:
    first, second = images(0), images(1)
    assert alex(first, first).abs().max() == 0
    torch.testing.assert_close(alex(first, second), alex(second, first))
    torch.testing.assert_close(alex(first, second)[1:], alex(first[1:], second[1:]))


def test_gradient_reaches_the_image_and_not_the_weights(alex: LPIPS) -> None:
    first = images(0).requires_grad_()
    alex(first, images(1)).sum().backward()
    assert first.grad is not None and first.grad.isfinite().all() and first.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in alex.parameters())


def test_gradient_is_finite_where_no_activation_fires() -> None:
    model = random_net("alex")
    for conv in model.convs:
        conv.bias.fill_(-100)
    first = images(0).requires_grad_()
    model(first, images(1)).sum().backward()
    assert first.grad is not None and first.grad.isfinite().all()


def test_vgg_taps_the_last_activation_of_each_block() -> None:
    taps = random_net("vgg").features(images(0, 32))
    assert [tuple(tap.shape[1:]) for tap in taps] == [
        (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)
    ]  # fmt: skip


def test_missing_weights_name_the_command(tmp_path, monkeypatch) -> None:  # noqa: ANN001
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=FETCH_COMMAND.replace(".", r"\.")):
        LPIPS("alex")


def test_damaged_weights(tmp_path) -> None:  # noqa: ANN001
    path = tmp_path / "lpips_alex.safetensors"
    path.write_bytes(b"not weights at all")
    with pytest.raises(WeightsError, match="lpips_alex"):
        LPIPS("alex", weights=path)


@pytest.mark.parametrize("second", [(2, 3, 64, 63), (1, 3, 64, 64)])
def test_wrong_shapes(alex: LPIPS, second: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError):
        alex(images(0), torch.zeros(second))


def test_too_small(alex: LPIPS) -> None:
    with pytest.raises(InvalidInputError, match="35 px"):
        alex(images(0, 34), images(1, 34))
    assert math.isfinite(alex(images(0, 35), images(1, 35))[0])


def test_unknown_network() -> None:
    with pytest.raises(InvalidInputError, match="alex"):
        LPIPS("squeeze")  # type: ignore[arg-type]


def test_both_pictures_are_seen_in_the_same_view() -> None:
    picture = torch.rand(1, 3, 24, 20, generator=torch.Generator().manual_seed(0))
    views = [random_view(picture, 2 * picture, torch.Generator().manual_seed(seed)) for seed in range(8)]
    assert all(torch.equal(2 * one, other) and one.shape == (1, 3, 16, 12) for one, other in views)
    assert len({one.sum().item() for one, _ in views}) > 4
    assert torch.equal(views[0][0], random_view(picture, picture, torch.Generator().manual_seed(0))[0])
