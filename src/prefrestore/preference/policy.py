"""The restoration loop as a policy: sample a group a face, reward it, and the loss that moves the adapter.

Three objectives over one class: DiffusionNFT (arXiv 2509.16117), Flow-GRPO (arXiv 2505.05470) and reward gradients
(ReFL, arXiv 2304.05977; DRaFT, arXiv 2309.17400). Advantages are grouped by LQ image, never by caption.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prefrestore.errors import InvalidInputError
from prefrestore.models.adapter import using_adapter
from prefrestore.models.texture import flow, sampler
from prefrestore.models.texture.conditioning import Conditions
from prefrestore.models.texture.input_skip import let_through
from prefrestore.preference import objectives
from prefrestore.preference.policy_base import Losses, PolicyObjective, PolicySettings
from prefrestore.preference.rewards.base import RewardContext
from prefrestore.preference.rewards.mix import RewardMix

if TYPE_CHECKING:
    from prefrestore.pipeline.pipeline import PrefRestorePipeline


class NftObjective(PolicyObjective):
    """DiffusionNFT: samples of the old policy, contrasted on the forward process."""

    def losses(
        self, conditions: Conditions, context: RewardContext, groups: Tensor, generator: torch.Generator
    ) -> Losses:
        """See `PolicyObjective.losses`."""
        settings = self.settings
        with using_adapter(self.transformer, self.old):
            noise = self.noise(conditions.lq_latents, generator)
            clean = self.rollout(conditions, noise)
        advantages, valid, curves = self.advantages(clean, conditions, context, groups)
        kept = valid.nonzero().flatten()
        told, x_0 = conditions.select(kept), clean[kept]
        t = self.times(len(clean), generator)
        t, noise = t[kept], self.noise(conditions.lq_latents, generator)[kept]
        x_t = flow.interpolate(x_0, self.pipeline.source(told, noise), t)
        with torch.no_grad(), using_adapter(self.transformer, self.old):
            old = self.pipeline.velocity(told)(x_t, t)
        reference = self.reference_velocity(told, x_t, t)
        velocity = self.pipeline.velocity(told)(x_t, t)
        loss, parts = objectives.nft_loss(
            velocity,
            old,
            reference,
            x_t,
            x_0,
            t,
            advantages[kept],
            beta=settings.beta,
            advantage_clip=settings.advantage_clip,
            kl_weight=settings.kl_weight,
        )
        return curves | parts | {"loss": loss}


    @torch.no_grad()
    def rollout(self, conditions: Conditions, noise: Tensor) -> Tensor:
        """The sampler's latents; in the reference's way without its last step, so at t = 1 / ``sample_steps``."""
        settings = self.settings
        if not settings.reference:
            return self.pipeline.sample(conditions, noise, settings.sample_steps, 1.0, 0.0, settings.solver)
        times, source = sampler.flow_times(settings.sample_steps)[:-1], self.pipeline.source(conditions, noise)
        return sampler.SOLVERS[settings.solver](self.pipeline.velocity(conditions), source, times)

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """The times (count,) of the loss: uniform; in the reference's way the steps of the rollout, shuffled.

        None of them comes again before all have come, within a micro-batch: each of its restorations gets one time a
        step, where the reference goes through all of them.
        """
        settings, device = self.settings, generator.device
        if not settings.reference:
            return torch.rand(count, generator=generator, device=device).clamp_min(1e-3) ** settings.time_exponent
        grid = torch.tensor(sampler.flow_times(settings.sample_steps)[:-2], device=device)
        passes = [torch.randperm(len(grid), generator=generator, device=device) for _ in range(-(-count // len(grid)))]
        return grid[torch.cat(passes)[:count]]


class RewardGradientObjective(PolicyObjective):
    """The differentiable rewards of the sampler's result, back through its last steps."""

    def __init__(self, pipeline: PrefRestorePipeline, mix: RewardMix, settings: PolicySettings, **kept: object) -> None:
        mix.require_gradients()
        super().__init__(pipeline, mix, settings, **kept)  # type: ignore[arg-type]

    @staticmethod
    def compares(settings: PolicySettings) -> bool:
        """Only for their agreement: the rewards' gradients are those of each restoration alone."""
        return settings.entropy_weight > 0

    def losses(
        self, conditions: Conditions, context: RewardContext, groups: Tensor, generator: torch.Generator
    ) -> Losses:
        """See `PolicyObjective.losses`."""
        settings = self.settings
        times = sampler.flow_times(settings.sample_steps)
        split = settings.sample_steps - settings.gradient_steps
        policy, solve = self.pipeline.velocity(conditions), sampler.SOLVERS[settings.solver]
        asked: list[Tensor] = []

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            asked.append(policy(x, t))
            return asked[-1]

        x = source = self.pipeline.source(conditions, self.noise(conditions.lq_latents, generator))
        with torch.no_grad():
            x = solve(policy, x, times[: split + 1]) if split else x
        latents = solve(velocity, x, times[split:])
        drift = None
        if settings.kl_weight:
            t = torch.full((len(x),), times[split], device=x.device)
            drift = objectives.velocity_kl(asked[0], self.reference_velocity(conditions, x, t))
        # The restorations of a face are nearly one picture: a few of them show the way up as well as all.
        few = self.first_of_each(groups, settings.rewarded or settings.group_size)
        autoencoder, seen = self.pipeline.autoencoder, self.shown(latents, conditions)[few]
        images = autoencoder.decode(seen / autoencoder.config.scaling_factor).sample.float()
        if conditions.images is not None:
            images = let_through(self.pipeline.input_skip, images, conditions.images[few])
        with torch.autocast(x.device.type, enabled=False):
            scored = self.mix.differentiable(images.add(1).div(2).clamp(0, 1), context.select(few.tolist()))
        loss, parts = objectives.reward_gradient_loss(scored.total, kl=drift, kl_weight=settings.kl_weight)
        distances = objectives.group_distances(latents, groups)
        loss = loss + settings.entropy_weight * distances.mean()
        if settings.anchor_weight:
            base = self.reference_latents(conditions, source, times)
            moved = objectives.group_means(latents - base, groups).square().mean()
            loss = loss + settings.anchor_weight * moved
            parts["moved"] = moved.detach().sqrt()
        return self.curves(scored.terms, -distances) | parts | {"loss": loss}

    def first_of_each(self, groups: Tensor, count: int) -> Tensor:
        """Where the first ``count`` restorations of each group stand, in order; groups stand in a row."""
        place = torch.arange(len(groups), device=groups.device)
        return place[place % self.settings.group_size < count]

    def reference_latents(self, conditions: Conditions, source: Tensor, times: list[float]) -> Tensor:
        """What the sampler makes of the source without an adapter."""
        with torch.no_grad(), using_adapter(self.transformer, None):
            return sampler.SOLVERS[self.settings.solver](self.pipeline.velocity(conditions), source, times)


class GrpoObjective(PolicyObjective):
    """Flow-GRPO: the sampler's steps made stochastic, so that each has a probability that can be raised."""

    def __init__(self, pipeline: PrefRestorePipeline, mix: RewardMix, settings: PolicySettings, **kept: object) -> None:
        if settings.sample_steps < 2:
            raise InvalidInputError("grpo needs two sampling steps or more: the last one is deterministic")
        super().__init__(pipeline, mix, settings, **kept)  # type: ignore[arg-type]

    def losses(
        self, conditions: Conditions, context: RewardContext, groups: Tensor, generator: torch.Generator
    ) -> Losses:
        """See `PolicyObjective.losses`."""
        settings, config = self.settings, self.pipeline.config
        start = self.pipeline.source_mean(conditions)
        velocity = self.pipeline.velocity(conditions)
        times = sampler.flow_times(settings.sample_steps)
        noises = {"start": start, "noise_scale": config.noise_scale, "eta": settings.noise_level}
        with torch.no_grad():
            source = self.pipeline.source(conditions, self.noise(start, generator))
            walked = sampler.sde(velocity, source, times, generator, **noises)
        advantages, valid, curves = self.advantages(walked.states[-1], conditions, context, groups)
        told: list[Losses] = []
        for step, (now, then) in enumerate(pairwise(times[:-1])):
            x, reached = walked.states[step], walked.states[step + 1]
            t, t_next = (torch.full((len(x),), time, device=x.device) for time in (now, then))
            mean, std = sampler.sde_moments(x, velocity(x, t), t, t_next, **noises)
            reference = self.reference_velocity(conditions, x, t)
            reference_mean, _ = sampler.sde_moments(x, reference, t, t_next, **noises)
            loss, parts = objectives.grpo_loss(
                sampler.gaussian_log_prob(reached, mean, std)[valid],
                walked.log_probs[step][valid],
                advantages[valid],
                clip_range=settings.clip_range,
                kl=objectives.gaussian_kl(mean, reference_mean, std)[valid],
                kl_weight=settings.kl_weight,
            )
            told.append(parts | {"loss": loss})
        return curves | {name: torch.stack([part[name] for part in told]).mean() for name in told[0]}


OBJECTIVES: dict[str, type[PolicyObjective]] = {
    "nft": NftObjective,
    "grpo": GrpoObjective,
    "reward-gradient": RewardGradientObjective,
}
