"""What the denoiser is told: the connectors, the conditions, and the denoiser's call with both."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from prefrestore.models.offload import at_work
from prefrestore.models.texture import flow
from prefrestore.models.texture.sampler import Velocity

if TYPE_CHECKING:
    from diffusers import SanaTransformer2DModel


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last dimension, computed in float32."""

    def __init__(self, dim: int, *, eps: float = 1e-5, weight: float = 1.0) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.full((dim,), weight))

    def forward(self, x: Tensor) -> Tensor:
        """Features (...,dim) -> the same shape and dtype."""
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.weight


def connector(in_features: int, out_features: int) -> nn.Sequential:
    """``Linear -> GELU(tanh) -> Linear -> RMSNorm(eps 1e-5, weight sqrt(5.5))``, the reference's key names 0, 2, 3."""
    return nn.Sequential(
        nn.Linear(in_features, out_features),
        nn.GELU(approximate="tanh"),
        nn.Linear(out_features, out_features),
        RMSNorm(out_features, weight=math.sqrt(5.5)),
    )


class Connectors(ModelMixin, ConfigMixin):
    """The two connectors of Pref-Restore: LM states and LQ tokens to the width of the denoiser's condition.

    Args:
        query_features: width of the language model.
        latent_features: inner width of the denoiser (what its ``patch_embed`` gives).
        condition_features: ``caption_channels`` of the denoiser.
    """

    @register_to_config
    def __init__(self, query_features: int, latent_features: int, condition_features: int) -> None:
        super().__init__()
        self.diffusion_connector = connector(query_features, condition_features)
        self.vae_connector = connector(latent_features, condition_features)

    def forward(self, queries: Tensor, lq_tokens: Tensor) -> Tensor:
        """Queries (B,Q,query_features) and LQ tokens (B,T,latent_features) -> condition (B,Q+T,condition_features)."""
        return torch.cat([self.diffusion_connector(queries), self.vae_connector(lq_tokens)], dim=1)


def embed_latents(transformer: SanaTransformer2DModel, latents: Tensor) -> Tensor:
    """LQ latents (B,C,h,w) -> LQ tokens (B,T,inner) by the denoiser's own ``patch_embed``.

    A denoiser whose input also carries the LQ latents by channel has a wider ``patch_embed``: the latents are repeated.
    An adapter on ``patch_embed`` is for what the flow passes through it; the tokens are the base's under every adapter.
    """
    copies = transformer.config.in_channels // latents.shape[1]
    with at_work(transformer, part=transformer.patch_embed), without_adapters(transformer.patch_embed):
        return transformer.patch_embed(latents.repeat(1, copies, 1, 1))


@contextmanager
def without_adapters(module: nn.Module) -> Iterator[None]:
    """For the duration of the block, the layers of a module as they are without any of PEFT's adapters."""
    layers: list[Any] = [layer for layer in module.modules() if hasattr(layer, "enable_adapters")]
    active = [layer for layer in layers if not layer.disable_adapters]
    learning = [(value, value.requires_grad) for layer in active for value in layer.parameters()]
    for layer in active:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in active:
            layer.enable_adapters(True)
        for value, learns in learning:  # PEFT makes what it enables learn
            value.requires_grad_(learns)


def denoise(
    transformer: SanaTransformer2DModel, x_t: Tensor, t: Tensor, condition: Tensor, lq_latents: Tensor
) -> Tensor:
    """The denoiser's output (B,C,h,w) at times t (B,) in [0,1]; its timestep input is 1000 t.

    The LQ latents are concatenated by channel when the denoiser was built for it (``in_channels`` twice ``C``).
    """
    if transformer.config.in_channels != x_t.shape[1]:
        x_t = torch.cat([x_t, lq_latents.to(x_t.dtype)], dim=1)
    return transformer(x_t, encoder_hidden_states=condition, timestep=1000 * t, return_dict=False)[0]


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the denoiser is told about B faces.

    lq_latents: scaled, (B,C,h,w), float32. condition: the connectors' output (B,N,D). images: the LQ faces (B,3,S,S) in
    [-1,1], for a pipeline with an `InputSkip`, or None.
    """

    lq_latents: Tensor
    condition: Tensor
    images: Tensor | None = None

    def __len__(self) -> int:
        return len(self.lq_latents)

    def repeat(self, count: int) -> Conditions:
        """Each face ``count`` times in a row, for samples that share one computation."""
        return Conditions(
            lq_latents=self.lq_latents.repeat_interleave(count, 0),
            condition=self.condition.repeat_interleave(count, 0),
            images=None if self.images is None else self.images.repeat_interleave(count, 0),
        )

    def select(self, index: Tensor | slice) -> Conditions:
        """The faces at ``index``."""
        return Conditions(
            lq_latents=self.lq_latents[index],
            condition=self.condition[index],
            images=None if self.images is None else self.images[index],
        )

    def unconditional(self) -> Conditions:
        """The same with an empty condition: the unconditional half of classifier-free guidance."""
        return replace(self, condition=torch.zeros_like(self.condition))


def conditional_velocity(
    transformer: SanaTransformer2DModel,
    conditions: Conditions,
    start: Tensor,
    *,
    residual_std: float | None,
) -> Velocity:
    """The velocity (x (B,C,h,w), t (B,)) -> (B,C,h,w), float32, under the conditions.

    Args:
        start: mean of the flow's source, (B,C,h,w).
        residual_std: see `flow.residual_velocity`; None takes the output as the velocity.
    """

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        output = denoise(transformer, x.to(transformer.dtype), t, conditions.condition, conditions.lq_latents).float()
        if residual_std is None:
            return output
        return flow.residual_velocity(output, x, start, t, residual_std=residual_std)

    return velocity
