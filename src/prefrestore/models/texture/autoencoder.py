"""The compact autoencoder: a linear transform (KLT) of image patches plus a deep residual, on AutoencoderDC.

The linear transform needs no training, only an eigenvalue problem, and the deep encoder and decoder start from it and
learn what a linear map cannot: `prefrestore train autoencoder` first prints how well the transform does alone.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderDC
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, EncoderOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.errors import InvalidInputError


class ResidualAutoencoder(ModelMixin, ConfigMixin):
    """A linear patch transform beside a DC-AE (arXiv 2410.10733) that works on pixel-unshuffled patches.

    ``latent = P x + E(x)`` and ``image = P' z + D(z)``, where ``P`` and ``P'`` are convolutions with kernel and
    stride ``spatial_compression_ratio``, and ``E``, ``D`` are the DC-AE's encoder behind ``pixel_unshuffle`` and its
    decoder before ``pixel_shuffle``. ``E`` and ``D`` give zeros at initialisation.

    Args:
        latent_channels: channels of the latent.
        stem_patch: side of the pixel-unshuffle patch; the deep path starts at 1/stem_patch of the resolution.
        encoder_block_out_channels, decoder_block_out_channels: widths of the stages, finest first.
        encoder_layers_per_block, decoder_layers_per_block: residual blocks of each stage.
        scaling_factor: the pipeline multiplies latents by it, as with every diffusers autoencoder.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        latent_channels: int = 16,
        stem_patch: int = 4,
        encoder_block_out_channels: tuple[int, ...] = (96, 192),
        encoder_layers_per_block: tuple[int, ...] = (2, 3),
        decoder_block_out_channels: tuple[int, ...] = (96, 192),
        decoder_layers_per_block: tuple[int, ...] = (3, 4),
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        stages = len(encoder_block_out_channels)
        if stages != len(decoder_block_out_channels):
            raise InvalidInputError("the autoencoder's encoder and decoder must have the same number of stages")
        self.deep = AutoencoderDC(
            in_channels=in_channels * stem_patch**2,
            latent_channels=latent_channels,
            encoder_block_out_channels=encoder_block_out_channels,
            decoder_block_out_channels=decoder_block_out_channels,
            encoder_layers_per_block=encoder_layers_per_block,
            decoder_layers_per_block=decoder_layers_per_block,
            encoder_qkv_multiscales=((),) * stages,
            decoder_qkv_multiscales=((),) * stages,
            encoder_out_shortcut=False,
            decoder_in_shortcut=False,
        )
        self.spatial_compression_ratio = stem_patch * 2 ** (stages - 1)
        ratio = self.spatial_compression_ratio
        self.patch_encoder = nn.Conv2d(in_channels, latent_channels, ratio, stride=ratio)
        self.patch_decoder = nn.ConvTranspose2d(latent_channels, in_channels, ratio, stride=ratio)
        for last in (self.deep.encoder.conv_out, self.deep.decoder.conv_out):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    @apply_forward_hook
    def encode(self, x: Tensor) -> EncoderOutput:
        """Image (B,3,H,W) in [-1,1], sides multiples of the compression -> latent (B,C,H/f,W/f), unscaled."""
        latent = self.patch_encoder(x) + self.deep.encoder(F.pixel_unshuffle(x, self.config.stem_patch))
        return EncoderOutput(latent=latent)

    @apply_forward_hook
    def decode(self, z: Tensor) -> DecoderOutput:
        """Latent (B,C,h,w), unscaled -> image (B,3,h f,w f), about [-1,1], not clamped."""
        sample = self.patch_decoder(z) + F.pixel_shuffle(self.deep.decoder(z), self.config.stem_patch)
        return DecoderOutput(sample=sample)

    def forward(self, x: Tensor) -> Tensor:
        """The round trip: image (B,3,H,W) in [-1,1] -> image of the same shape."""
        return self.decode(self.encode(x).latent).sample

    @torch.no_grad()
    def initialise_from_patches(self, images: Tensor, *, exponent: float = 0.5) -> float:
        """Set the linear path to the KLT of the images' patches, half-whitened; return its PSNR on them in dB.

        Channel k is scaled by ``std_k ** -exponent``: 0 keeps pixel energy (detail drowns in the flow's noise), 1
        whitens (unpredictable detail dominates every loss), 0.5 lies between. All channels together have unit
        variance afterwards, so ``scaling_factor`` stays 1.

        Args:
            images: (B,3,H,W) in [-1,1].
            exponent: how far to whiten, 0 to 1.
        """
        f = self.spatial_compression_ratio
        channels = self.config.latent_channels
        patches = F.unfold(images.float(), f, stride=f).transpose(1, 2).flatten(0, 1)
        mean = patches.mean(0)
        covariance = torch.cov((patches - mean).double().T)
        variances, basis = torch.linalg.eigh(covariance)
        basis = basis.flip(1)[:, :channels].T.float()
        std = variances.flip(0)[:channels].clamp_min(1e-12).sqrt().float()
        scale = std**-exponent
        scale = scale / (std * scale).square().mean().sqrt()
        weight = (basis * scale[:, None]).unflatten(1, (images.shape[1], f, f))
        self.patch_encoder.weight.copy_(weight)
        self.patch_encoder.bias = nn.Parameter(-(basis @ mean) * scale)
        self.patch_decoder.weight.copy_((basis / scale[:, None]).unflatten(1, (images.shape[1], f, f)))
        # The mean patch differs from pixel to pixel inside a patch by less than a grey level: one bias a colour.
        self.patch_decoder.bias = nn.Parameter(mean.unflatten(0, (images.shape[1], f * f)).mean(1))
        rebuilt = (patches - mean) @ basis.T @ basis
        error = (rebuilt - (patches - mean)).square().mean() / 4  # [-1,1] has twice the range of [0,1]
        return float(-10 * torch.log10(error))


def decoder_parts(autoencoder: nn.Module) -> tuple[nn.Module, ...]:
    """The parts of an autoencoder, this one or diffusers' own, that make pictures of latents."""
    if isinstance(autoencoder, ResidualAutoencoder):
        return autoencoder.patch_decoder, autoencoder.deep.decoder
    return (autoencoder.get_submodule("decoder"),)
