"""The face generator's own mathematics, at a toy size; tests/tools compares it with the original."""

from pathlib import Path

import pytest
import torch

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.models.generator import MobileStyleGAN, inverse_haar


@pytest.fixture
def toy() -> MobileStyleGAN:
    torch.manual_seed(0)
    made = MobileStyleGAN(widths=(16, 8))
    for name, weight in made.named_parameters():  # as they are new, what went in is forgotten on the way
        if weight.dim() > 1 and "noise" not in name:
            torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5 * (8 if "modulation" in name else 1))
    return made


def drawn(toy: MobileStyleGAN, count: int, **settings: object) -> torch.Tensor:
    return toy.draw(count, generator=torch.Generator().manual_seed(5), **settings)  # type: ignore[arg-type]


def test_each_wavelet_by_hand() -> None:
    for place, square in enumerate([[[1, 1], [1, 1]], [[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]]]):
        coefficients = torch.zeros(1, 4, 1, 1)
        coefficients[0, place] = 2
        assert inverse_haar(coefficients).tolist() == [[square]]


def test_details_of_a_channel_lie_together_and_energy_is_kept() -> None:
    coefficients = torch.randn(2, 12, 4, 4)
    made = inverse_haar(coefficients)
    assert made.shape == (2, 3, 8, 8)
    assert torch.allclose(made.square().sum(), coefficients.square().sum(), rtol=1e-5)
    for channel in range(3):
        own = torch.cat([coefficients[:, channel, None], coefficients[:, 3 + 3 * channel : 6 + 3 * channel]], dim=1)
        assert torch.equal(made[:, channel, None], inverse_haar(own))


def test_the_generator_alone_decides_the_faces(toy: MobileStyleGAN) -> None:
    many = drawn(toy, 3)
    assert many.shape == (3, 3, 32, 32) and many.abs().max() <= 1
    assert torch.allclose(drawn(toy, 2), many[:2], atol=1e-4)
    assert not torch.allclose(many[0], many[1], atol=0.1)
    smaller = drawn(toy, 3, size=8)
    assert torch.allclose(smaller, many.unfold(2, 4, 4).unfold(3, 4, 4).mean((-1, -2)), atol=1e-4)


def test_without_strength_all_faces_are_the_mean_one(toy: MobileStyleGAN) -> None:
    toy.mean_style.normal_(generator=torch.Generator().manual_seed(1))
    faces = drawn(toy, 2, psi=(0.0, 0.0))
    assert torch.allclose(faces[0], faces[1])
    assert torch.allclose(faces[:1], toy.synthesize(toy.mean_style).clamp(-1, 1), atol=1e-4)


def test_it_draws_where_its_weights_are(toy: MobileStyleGAN) -> None:
    faces = toy.to("meta").draw(4, generator=torch.Generator().manual_seed(0), size=16)
    assert faces.device.type == "meta" and faces.shape == (4, 3, 16, 16)


@pytest.mark.parametrize("settings", [{"psi": (0.9, 0.6)}, {"psi": (0.0, 2.0)}, {"size": 24}, {"size": 0}])
def test_what_cannot_be_drawn(toy: MobileStyleGAN, settings: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        drawn(toy, 1, **settings)
    with pytest.raises(InvalidInputError):
        drawn(toy, 0)


def test_weights_of_another_network_are_refused(tmp_path: Path, toy: MobileStyleGAN) -> None:
    from safetensors.torch import save_file

    save_file({"constant": torch.zeros(1, 16, 4, 4)}, tmp_path / "other.safetensors")
    for file in (tmp_path / "other.safetensors", tmp_path / "none.safetensors"):
        with pytest.raises(WeightsError):
            MobileStyleGAN(file, widths=(16, 8))
