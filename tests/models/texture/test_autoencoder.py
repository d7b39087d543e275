"""The linear transform is an exact KLT at initialisation; the connectors by hand."""

import pytest
import torch

from prefrestore.models.texture.autoencoder import ResidualAutoencoder
from prefrestore.models.texture.conditioning import Connectors, RMSNorm

SMALL = {"encoder_block_out_channels": (8, 16), "decoder_block_out_channels": (8, 16)}


@pytest.fixture
def images() -> torch.Tensor:
    smooth = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(smooth, size=(32, 32), mode="bicubic").clamp(-1, 1)


def test_as_many_channels_as_pixels_rebuild_the_picture(images: torch.Tensor) -> None:
    autoencoder = ResidualAutoencoder(
        latent_channels=12, stem_patch=2, encoder_block_out_channels=(8,), decoder_block_out_channels=(8,),
        encoder_layers_per_block=(1,), decoder_layers_per_block=(1,),
    )  # fmt: skip
    autoencoder.initialise_from_patches(images)
    with torch.no_grad():
        # The bias is one a colour where the mean patch is one a pixel, which costs a little.
        assert (autoencoder(images) - images).abs().mean() < 0.02


def test_latents_have_unit_variance_and_the_reported_error(images: torch.Tensor) -> None:
    autoencoder = ResidualAutoencoder(latent_channels=6, **SMALL)
    psnr = autoencoder.initialise_from_patches(images)
    with torch.no_grad():
        latent = autoencoder.encode(images).latent
        error = (autoencoder(images) - images).square().mean() / 4
    assert latent.shape == (6, 6, 4, 4)
    assert abs(latent.square().mean().sqrt().item() - 1) < 0.05
    assert abs(-10 * torch.log10(error).item() - psnr) < 1.0


def test_rms_norm_by_hand() -> None:
    norm = RMSNorm(2, eps=0.0, weight=2.0)
    assert torch.allclose(norm(torch.tensor([3.0, 4.0])), torch.tensor([6.0, 8.0]) / 12.5**0.5)


def test_the_condition_is_queries_then_lq_tokens() -> None:
    connectors = Connectors(query_features=4, latent_features=6, condition_features=8)
    queries, tokens = torch.randn(2, 5, 4), torch.randn(2, 3, 6)
    condition = connectors(queries, tokens)
    assert condition.shape == (2, 8, 8)
    assert torch.equal(condition[:, :5], connectors.diffusion_connector(queries))
    assert connectors.diffusion_connector[3].weight[0].item() == pytest.approx(5.5**0.5)
