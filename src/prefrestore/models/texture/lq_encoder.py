"""The LQ encoder: from the autoencoder's latent of the degraded image to an estimate of the clean image's latent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.models.offload import at_work

if TYPE_CHECKING:
    from diffusers import AutoencoderDC

    from prefrestore.models.texture.autoencoder import ResidualAutoencoder


class _Layer(nn.Module):
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
    ) -> None:
        super().__init__()
        self.embed = nn.Conv2d(latent_channels, width, 2 * patch, stride=patch, padding=patch // 2)
        self.position = nn.Parameter(torch.randn(1, width, side // patch, side // patch) * 0.02)
        self.blocks = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.project = nn.ConvTranspose2d(width, latent_channels, 2 * patch, stride=patch, padding=patch // 2)
        for parameter in self.project.parameters():
            nn.init.zeros_(parameter)

    @apply_forward_hook
    def encode(self, latents: Tensor) -> Tensor:
        """The autoencoder's latents of LQ images (B,C,h,w) -> estimates of the clean images' latents, same shape."""
        features = self.embed(latents)
        position: Tensor = self.position
        if position.shape[-2:] != features.shape[-2:]:
            position = F.interpolate(position, size=features.shape[-2:], mode="bicubic")
        features = features + position
        for block in self.blocks:
            features = block(features)
        features = self.norm(features.movedim(1, -1)).movedim(-1, 1)
        return latents + self.project(features)

    forward = encode


def lq_latents(
    autoencoder: ResidualAutoencoder | AutoencoderDC, encoder: LatentEncoder | AutoencoderDC | None, images: Tensor
) -> Tensor:
    """LQ images (B,3,H,W) in [-1,1] -> their scaled latents (B,C,h,w), float32: the posterior mean's estimate.

    Args:
        encoder: what corrects the autoencoder's latents, a tuned copy of the autoencoder (the paper's), or None for the
            autoencoder itself.
    """
    image_encoder = autoencoder if encoder is None or isinstance(encoder, LatentEncoder) else encoder
    with at_work(image_encoder):
        latents = image_encoder.encode(images.to(image_encoder.dtype)).latent.float()
    latents = latents * autoencoder.config.scaling_factor
    if isinstance(encoder, LatentEncoder):
        with at_work(encoder):
            latents = encoder.encode(latents.to(encoder.dtype)).float()
    return latents
