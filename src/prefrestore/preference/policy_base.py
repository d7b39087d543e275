"""What the policy objectives have in common: groups of restorations of a face, their rewards, and what is logged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prefrestore.errors import InvalidInputError
from prefrestore.models.adapter import using_adapter
from prefrestore.models.texture import sampler
from prefrestore.models.texture.conditioning import Conditions, embed_latents
from prefrestore.preference import objectives
from prefrestore.preference.advantages import group_advantages
from prefrestore.preference.rewards.base import RewardContext
from prefrestore.preference.rewards.mix import RewardMix, standardise

if TYPE_CHECKING:
    from prefrestore.pipeline.pipeline import PrefRestorePipeline

Losses = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """See the fields of the same names of `prefrestore.preference.trainer.Config`."""

    group_size: int
    sample_steps: int
    solver: str
    gradient_steps: int
    time_exponent: float
    noise_level: float
    beta: float
    advantage_clip: float
    clip_range: float
    kl_weight: float
    entropy_weight: float
    anchor_weight: float
    rewarded: int
    reference: bool = False

    def __post_init__(self) -> None:
        if self.group_size < 1:
            raise InvalidInputError(f"a group is one restoration or more, not {self.group_size}")
        if not 0 <= self.rewarded <= self.group_size:
            raise InvalidInputError(f"of a group of {self.group_size}, {self.rewarded} cannot be rewarded")
        if not 1 <= self.gradient_steps <= self.sample_steps:
            raise InvalidInputError(f"gradients go through 1 to {self.sample_steps} steps, not {self.gradient_steps}")
        if self.solver not in sampler.SOLVERS:
            raise InvalidInputError(f"the solver is one of {', '.join(sampler.SOLVERS)}, not '{self.solver}'")


class PolicyObjective(nn.Module):
    """What the three have in common: groups, rewards, and what is logged.

    Args:
        pipeline: frozen, with the adapters ``policy`` (trained, active) and ``old`` on its denoiser.
        mix: what is optimised.
    """

    def __init__(
        self,
        pipeline: PrefRestorePipeline,
        mix: RewardMix,
        settings: PolicySettings,
        *,
        policy: str = "default",
        old: str = "old",
    ) -> None:
        super().__init__()
        if settings.group_size < 2 and self.compares(settings):
            raise InvalidInputError("a group is two restorations or more where they are compared with each other")
        self.transformer = pipeline.transformer
        self.pipeline, self.mix, self.settings = pipeline, mix, settings
        self.policy, self.old = policy, old

    @staticmethod
    def compares(settings: PolicySettings) -> bool:
        """Whether the objective learns from the differences within a group: one restoration has none."""
        return True

    def forward(
        self,
        lq_latents: Tensor,
        queries: Tensor,
        targets: Tensor,
        captions: Sequence[str | None],
        generator: torch.Generator,
        images: Tensor | None = None,
    ) -> Losses:
        """Scaled LQ latents (G,C,h,w), LM states (G,Q,D), clean images (G,3,H,W) in [-1,1] -> losses and curves.

        ``images``: the LQ ones, for the pipeline's input skip.
        """
        with torch.no_grad():
            lq_tokens = embed_latents(self.transformer, lq_latents)
            condition = self.pipeline.connectors(queries, lq_tokens)
        seen = images if self.pipeline.input_skip is not None else None
        conditions = Conditions(lq_latents=lq_latents, condition=condition, images=seen)
        count = self.settings.group_size
        context = RewardContext(reference=targets.add(1).div(2), captions=captions, views=generator).repeat(count)
        groups = torch.arange(len(lq_latents), device=lq_latents.device).repeat_interleave(count)
        return self.losses(conditions.repeat(count), context, groups, generator)

    def losses(
        self, conditions: Conditions, context: RewardContext, groups: Tensor, generator: torch.Generator
    ) -> Losses:
        """The losses of N restorations, ``group_size`` in a row for each LQ image; the total under ``loss``."""
        raise NotImplementedError

    def shown(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """The latents (N,C,h,w) as a user gets to see them: drawn to the LQ latents by the preset's fidelity."""
        return torch.lerp(latents, conditions.lq_latents, self.pipeline.config.fidelity)

    def noise(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Standard normal noise of the shape of ``like``."""
        return torch.randn(like.shape, generator=generator, device=like.device)

    @torch.no_grad()
    def advantages(
        self, latents: Tensor, conditions: Conditions, context: RewardContext, groups: Tensor
    ) -> tuple[Tensor, Tensor, Losses]:
        """Decode, reward -> advantages (N,), which of them are valid (N,), and the curves."""
        # float32: two restorations of one face differ by less than bf16 tells apart
        with torch.autocast(latents.device.type, enabled=False):
            images = self.pipeline.decode(self.shown(latents, conditions), conditions)
            scored = self.mix(images, context, groups)
        agreement = -objectives.group_distances(latents, groups)
        total = scored.total + self.settings.entropy_weight * standardise(agreement, groups)
        values, valid, _ = group_advantages(total, groups)
        return values, valid, self.curves(scored.terms, agreement) | {"skipped": (~valid).sum()}

    @staticmethod
    def curves(terms: dict[str, Tensor], agreement: Tensor) -> Losses:
        """What is logged of a round: each reward's mean, and the spread of the latents."""
        curves = {f"reward_{name}": scores.detach().nanmean() for name, scores in terms.items()}
        curves["latent_std"] = (-agreement.detach()).mean().sqrt()
        return curves

    def reference_velocity(self, conditions: Conditions, x: Tensor, t: Tensor) -> Tensor:
        """The velocity without an adapter."""
        with torch.no_grad(), using_adapter(self.transformer, None):
            return self.pipeline.velocity(conditions)(x, t)
