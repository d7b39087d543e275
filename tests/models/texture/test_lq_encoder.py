"""The transformer behind the autoencoder's encoder: it starts as nothing, sees everything, and takes any size."""

import pytest
import torch
from diffusers import AutoencoderDC

from prefrestore.errors import InvalidInputError
from prefrestore.models.texture.autoencoder import ResidualAutoencoder
from prefrestore.models.texture.lq_encoder import LatentEncoder, listens, lq_latents


@pytest.fixture
def encoder() -> LatentEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = LatentEncoder(latent_channels=4, side=8, patch=2, width=16, layers=1, heads=2)
        torch.nn.init.normal_(encoder.project.weight, std=0.1)
    return encoder.eval()


@pytest.fixture
def autoencoder() -> ResidualAutoencoder:
    return ResidualAutoencoder(
        latent_channels=4,
        encoder_block_out_channels=(8, 16),
        encoder_layers_per_block=(1, 1),
        decoder_block_out_channels=(8, 16),
        decoder_layers_per_block=(1, 1),
        scaling_factor=0.5,
    ).eval()


def latents(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_it_starts_as_the_identity() -> None:
    z = latents(2, 4, 8, 8)
    assert torch.equal(LatentEncoder(latent_channels=4, side=8, width=16, layers=1, heads=2).encode(z), z)


@torch.no_grad()
def test_every_place_hears_of_every_other(encoder: LatentEncoder) -> None:
    z = latents(1, 4, 8, 8)
    changed = z.clone()
    changed[..., 0, 0] += 3
    difference = (encoder.encode(changed) - encoder.encode(z)).abs().amax((0, 1))
    assert difference.min() > 1e-6


@torch.no_grad()
def test_where_a_patch_lies_matters(encoder: LatentEncoder) -> None:
    """Padding tells the rim from the middle, so it is the learned positions that are taken away here."""
    z = torch.ones(1, 4, 8, 8)
    told = encoder.encode(z)
    encoder.position.zero_()
    assert (encoder.encode(z) - told).abs().max() > 1e-3


@torch.no_grad()
def test_other_sizes_resize_the_positions(encoder: LatentEncoder) -> None:
    assert encoder.encode(latents(1, 4, 12, 16)).shape == (1, 4, 12, 16)


@torch.no_grad()
def test_the_latents_by_each_kind_of_encoder(encoder: LatentEncoder, autoencoder: ResidualAutoencoder) -> None:
    images = latents(2, 3, 64, 64).clamp(-1, 1)
    plain = autoencoder.encode(images).latent * 0.5
    assert torch.equal(lq_latents(autoencoder, None, images), plain)
    assert torch.equal(lq_latents(autoencoder, encoder, images), encoder.encode(plain))
    tuned = AutoencoderDC(
        latent_channels=4,
        encoder_block_out_channels=(8, 16, 16, 16),
        decoder_block_out_channels=(8, 16, 16, 16),
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_layers_per_block=(1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        encoder_qkv_multiscales=((), (), (), ()),
        decoder_qkv_multiscales=((), (), (), ()),
        encoder_out_shortcut=False,
        decoder_in_shortcut=False,
    ).eval()
    assert torch.equal(lq_latents(autoencoder, tuned, images), tuned.encode(images).latent * 0.5)


@torch.no_grad()
def test_the_picture_and_the_queries_first_add_nothing_and_then_act(encoder: LatentEncoder) -> None:
    more = LatentEncoder(
        latent_channels=4, side=8, patch=2, width=16, layers=1, heads=2, pixel_width=4, query_features=6
    )
    more.load_state_dict(encoder.state_dict(), strict=False)
    z, images, queries = latents(1, 4, 8, 8), latents(1, 3, 64, 64), latents(1, 5, 6)
    assert torch.equal(more.encode(z, images, queries), encoder.encode(z))
    torch.nn.init.normal_(more.pixels.layers[-1].weight)
    seen = more.encode(z, images)
    assert not torch.allclose(seen, encoder.encode(z))
    torch.nn.init.normal_(more.listen[0].attention.to_out[0].weight)
    assert not torch.allclose(more.encode(z, images, queries), seen)
    with pytest.raises(InvalidInputError):
        more.encode(z)


@torch.no_grad()
def test_queries_are_passed_to_an_encoder_that_takes_them_alone(
    encoder: LatentEncoder, autoencoder: ResidualAutoencoder
) -> None:
    images, queries = latents(1, 3, 64, 64).clamp(-1, 1), latents(1, 5, 6)
    assert torch.equal(lq_latents(autoencoder, encoder, images, queries), lq_latents(autoencoder, encoder, images))
    listening = LatentEncoder(latent_channels=4, side=8, width=16, layers=1, heads=2, query_features=6).eval()
    torch.nn.init.normal_(listening.project.weight, std=0.1)
    assert listening.listen is not None
    torch.nn.init.normal_(listening.listen[0].attention.to_out[0].weight)  # type: ignore[union-attr]
    assert not listens(encoder) and listens(listening)
    heard = lq_latents(autoencoder, listening, images, queries)
    assert not torch.equal(heard, lq_latents(autoencoder, listening, images))


@torch.no_grad()
def test_the_grid_of_queries_speaks_to_its_own_places() -> None:
    encoder = LatentEncoder(latent_channels=4, side=8, width=16, layers=1, heads=2, query_features=6).eval()
    grid = encoder.lay_out
    assert grid is not None
    queries = latents(1, 5, 6)  # one before the answer, then two by two
    assert torch.count_nonzero(grid(queries, (4, 4))) == 0
    torch.nn.init.normal_(grid.project.weight)
    changed = queries.clone()
    changed[:, 4] += torch.arange(6.0)  # read at the last token's place alone
    moved = (grid(changed, (4, 4)) - grid(queries, (4, 4))).abs().sum(1)[0]
    assert moved[:1, :1].max() == 0 and moved[3, 3] > 0
    with pytest.raises(InvalidInputError, match="square"):
        grid(latents(1, 4, 6), (4, 4))
