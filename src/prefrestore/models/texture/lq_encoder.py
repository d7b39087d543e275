"""The LQ encoder: from the autoencoder's latent of the degraded image to an estimate of the clean image's latent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.errors import InvalidInputError
from prefrestore.models.offload import at_work

if TYPE_CHECKING:
    from diffusers import AutoencoderDC

    from prefrestore.models.texture.autoencoder import ResidualAutoencoder


class FaceLayer(nn.Module):
    """A depthwise convolution for the neighbourhood, then attention over the whole face."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.neighbourhood = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.attention = BasicTransformerBlock(
            width, heads, width // heads, activation_fn="gelu-approximate", ff_inner_dim=width * 5 // 2
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B,width,h,w) -> the same shape."""
        features = features + self.neighbourhood(features)
        tokens = self.attention(features.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).unflatten(2, features.shape[-2:])


class _PixelStem(nn.Module):
    """The picture itself, as features on the grid of the tokens; its last layer starts at zero.

    The autoencoder keeps the latents that rebuild a picture best, and of a blurred picture that is the blur: what its
    faint high frequencies still say of the sharp one is for the most part gone in them.
    """

    def __init__(self, width: int, features: int, patch: int, unshuffle: int = 4) -> None:
        super().__init__()
        self.unshuffle = unshuffle
        self.layers = nn.Sequential(
            nn.Conv2d(3 * unshuffle**2, width, 3, padding=1),
            nn.GELU(approximate="tanh"),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.GELU(approximate="tanh"),
            nn.Conv2d(2 * width, features, 2 * patch, stride=patch, padding=patch // 2),
        )
        _zero(self.layers[-1])

    def forward(self, images: Tensor) -> Tensor:
        """Images (B,3,H,W) in [-1,1] -> (B,features,H/8/patch,W/8/patch)."""
        return cast(Tensor, self.layers(F.pixel_unshuffle(images, self.unshuffle)))


class _QueryAttention(nn.Module):
    """Cross-attention of the tokens to the latent queries; its last layer starts at zero, so it first adds nothing."""

    def __init__(self, width: int, query_features: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query_norm = nn.LayerNorm(query_features)
        self.attention = Attention(width, query_features, heads=heads, dim_head=width // heads)
        _zero(self.attention.to_out[0])

    def forward(self, features: Tensor, queries: Tensor) -> Tensor:
        """Tokens (B,width,h,w), queries (B,Q,query_features) -> what is added to the tokens, (B,width,h,w)."""
        tokens = self.norm(features.flatten(2).transpose(1, 2))
        answer = self.attention(tokens, encoder_hidden_states=self.query_norm(queries))
        return cast(Tensor, answer.transpose(1, 2).unflatten(2, features.shape[-2:]))


class _QueryGrid(nn.Module):
    """The queries as a grid, in the places of the tokens that they stand for; at first it adds nothing.

    Attention has to find out which query is of which place before anything in them is of use, and the places are known.
    The state before a token foretells it, the state at it has read it: both are given.
    """

    def __init__(self, width: int, query_features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(query_features)
        self.project = nn.Linear(2 * query_features, width)
        _zero(self.project)

    def forward(self, queries: Tensor, size: tuple[int, int]) -> Tensor:
        """Queries (B,n n + 1,query_features) -> what is added to the tokens, (B,width,*size).

        Raises:
            InvalidInputError: the queries but one are no square.
        """
        side = math.isqrt(queries.shape[1] - 1)
        if side * side != queries.shape[1] - 1:
            raise InvalidInputError(f"{queries.shape[1]} queries are not those of a square of tokens and one before it")
        normed = self.norm(queries)
        grid = self.project(torch.cat([normed[:, :-1], normed[:, 1:]], dim=-1))
        grid = grid.transpose(1, 2).unflatten(2, (side, side))
        return F.interpolate(grid, size=size, mode="bilinear", align_corners=False)


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class LatentEncoder(ModelMixin, ConfigMixin):
    """A transformer that corrects the autoencoder's latent of the LQ image; at initialisation it changes nothing.

    Pref-Restore (arXiv 2601.19506, step 2) tunes a copy of the autoencoder's encoder so that the LQ latent comes close
    to the clean one under a mean-square loss; what it then gives is the posterior mean of the clean latent. Here the
    encoder is shared and what is trained stands behind it: it sees the whole face at once, because what a blurred patch
    was depends on where in the face it lies, and it costs a fraction of convolutions at the resolution of the image.

    Args:
        latent_channels: of the autoencoder.
        side: of the latent it is built for; the learned positions are resized for others.
        patch: side of the square of latents that makes a token; neighbouring squares overlap by half of it.
        width, layers, heads: of the transformer.
        pixel_width: of the stem that sees the LQ image itself; 0 builds none.
        query_features: width of the latent queries; 0 builds no way for them to be heard: their grid, added to the
            tokens, and cross-attention to them.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        side: int = 32,
        patch: int = 2,
        width: int = 320,
        layers: int = 6,
        heads: int = 5,
        pixel_width: int = 0,
        query_features: int = 0,
    ) -> None:
        super().__init__()
        self.embed = nn.Conv2d(latent_channels, width, 2 * patch, stride=patch, padding=patch // 2)
        self.position = nn.Parameter(torch.randn(1, width, side // patch, side // patch) * 0.02)
        self.blocks = nn.ModuleList(FaceLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.project = nn.ConvTranspose2d(width, latent_channels, 2 * patch, stride=patch, padding=patch // 2)
        _zero(self.project)
        self.pixels = _PixelStem(pixel_width, width, patch) if pixel_width else None
        self.listen = (
            nn.ModuleList(_QueryAttention(width, query_features, heads) for _ in range(layers))
            if query_features
            else None
        )
        self.lay_out = _QueryGrid(width, query_features) if query_features else None

    @apply_forward_hook
    def encode(self, latents: Tensor, images: Tensor | None = None, queries: Tensor | None = None) -> Tensor:
        """The autoencoder's latents of LQ images (B,C,h,w) -> estimates of the clean images' latents, same shape.

        Args:
            images: the LQ images (B,3,8h,8w) in [-1,1]; an encoder with ``pixel_width`` needs them.
            queries: latent queries (B,Q,query_features); None leaves the cross-attention out.
        """
        features = self.embed(latents)
        if self.pixels is not None:
            if images is None:
                raise InvalidInputError("this LQ encoder also sees the picture: give it the images")
            features = features + self.pixels(images)
        position: Tensor = self.position
        if position.shape[-2:] != features.shape[-2:]:
            position = F.interpolate(position, size=features.shape[-2:], mode="bicubic")
        features = features + position
        if self.lay_out is not None and queries is not None:
            features = features + self.lay_out(queries, (features.shape[-2], features.shape[-1]))
        for place, block in enumerate(self.blocks):
            features = block(features)
            if self.listen is not None and queries is not None:
                features = features + self.listen[place](features, queries)
        features = self.norm(features.movedim(1, -1)).movedim(-1, 1)
        return latents + self.project(features)

    forward = encode


def listens(encoder: object) -> bool:
    """Whether an LQ encoder takes the latent queries."""
    return isinstance(encoder, LatentEncoder) and encoder.config.query_features > 0


def lq_latents(
    autoencoder: ResidualAutoencoder | AutoencoderDC,
    encoder: LatentEncoder | AutoencoderDC | None,
    images: Tensor,
    queries: Tensor | None = None,
) -> Tensor:
    """LQ images (B,3,H,W) in [-1,1] -> their scaled latents (B,C,h,w), float32: the posterior mean's estimate.

    Args:
        encoder: what corrects the autoencoder's latents, a tuned copy of the autoencoder (the paper's), or None for the
            autoencoder itself.
        queries: latent queries (B,Q,D) for an encoder that takes them.
    """
    image_encoder = autoencoder if encoder is None or isinstance(encoder, LatentEncoder) else encoder
    with at_work(image_encoder):
        latents = image_encoder.encode(images.to(image_encoder.dtype)).latent.float()
    latents = latents * autoencoder.config.scaling_factor
    if isinstance(encoder, LatentEncoder):
        with at_work(encoder):
            seen = images.to(encoder.dtype) if encoder.config.pixel_width else None
            heard = queries.to(latents.device, encoder.dtype) if listens(encoder) and queries is not None else None
            latents = encoder.encode(latents.to(encoder.dtype), seen, heard).float()
    return latents
