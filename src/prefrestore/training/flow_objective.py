"""The losses of step 2: the flow's, and those of the picture that its estimate of the clean latent decodes to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.metrics.lpips import random_view
from prefrestore.models.texture import flow, sampler
from prefrestore.models.texture.autoencoder import decoder_parts
from prefrestore.models.texture.conditioning import Conditions, conditional_velocity, embed_latents
from prefrestore.training.discriminator import LatentDiscriminator, adversarial_losses, pull

if TYPE_CHECKING:
    from prefrestore.pipeline.pipeline import PrefRestorePipeline
    from prefrestore.training.likeness import LikenessLoss


@dataclass(frozen=True, kw_only=True)
class FlowLosses:
    """Fields of the stages that train the denoiser; `prefrestore.training.fidelity.Config` says what they mean."""

    condition_dropout: float = 0.1
    query_dropout: float = 0.1
    start_share: float = 0.25
    rollout_share: float = 0.5
    rollout_steps: int = 2
    minimum_time: float = 0.25
    perceptual_weight: float = 0.7
    perceptual_share: float = 0.6
    identity_weight: float = 0.5
    features_weight: float = 1.0
    identity_share: float = 0.25
    decoded_margin: int = 3
    decoder_weight: float = 1.0
    adversarial_weight: float = 0.5
    adversarial_warmup: int = 150


class FlowObjective(nn.Module):
    """The flow loss ``mean((v - (x_1 - x_0))^2)`` under queries and LQ latents, plus losses on the clean estimate.

    Those are a discriminator of latents and, decoded, LPIPS and likeness in random views; the decoder of
    ``autoencoder`` may be trained with them, and with an ``input_skip`` the picture is what comes out behind it. A
    network that is not given leaves its loss out.
    """

    def __init__(
        self,
        transformer: Any,
        connectors: nn.Module,
        losses: FlowLosses,
        *,
        noise_scale: float,
        residual_std: float | None,
        start_from_lq: bool,
        autoencoder: Any = None,
        perceptual: nn.Module | None = None,
        identity: LikenessLoss | None = None,
        discriminator: LatentDiscriminator | None = None,
        input_skip: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.transformer, self.connectors, self.config = transformer, connectors, losses
        self.noise_scale, self.residual_std, self.start_from_lq = noise_scale, residual_std, start_from_lq
        self.autoencoder, self.perceptual, self.identity = autoencoder, perceptual, identity
        self.discriminator, self.input_skip = discriminator, input_skip

    @classmethod
    def of(cls, pipeline: PrefRestorePipeline, losses: FlowLosses, *, seed: int) -> FlowObjective:
        """The objective of a pipeline, with the networks that the weights of ``losses`` ask for.

        Raises:
            WeightsError, MissingDependencyError: what a loss needs is not there.
        """
        networks: dict[str, Any] = {}
        if losses.perceptual_weight > 0:
            from prefrestore.metrics.lpips import LPIPS

            networks["perceptual"] = LPIPS("alex")
        if losses.identity_weight > 0 or losses.features_weight > 0:
            from prefrestore.metrics.sface import SFaceNetwork
            from prefrestore.training.likeness import LikenessLoss

            networks["identity"] = LikenessLoss(SFaceNetwork())
        if losses.decoder_weight > 0:
            for part in decoder_parts(pipeline.autoencoder):
                part.requires_grad_(True)
        if networks or losses.decoder_weight > 0:
            networks["autoencoder"] = pipeline.autoencoder
        if losses.adversarial_weight > 0:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)  # layers draw their first weights from the global generator
                networks["discriminator"] = LatentDiscriminator(pipeline.autoencoder.config.latent_channels)
        return cls(
            pipeline.transformer,
            pipeline.connectors,
            losses,
            noise_scale=pipeline.config.noise_scale,
            residual_std=pipeline.config.residual_std,
            start_from_lq=pipeline.config.start == "lq_latent",
            input_skip=pipeline.input_skip,
            **networks,
        )

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B,C,h,w) -> images (B,3,H,W), about [-1,1]."""
        assert self.autoencoder is not None
        return self.autoencoder.decode(latents / self.autoencoder.config.scaling_factor).sample.float()

    def forward(
        self,
        lq_latents: Tensor,
        clean_latents: Tensor,
        queries: Tensor,
        targets: Tensor,
        generator: torch.Generator,
        step: int = 0,
        images: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Scaled latents (B,C,h,w), LM states (B,Q,D), clean and LQ images (B,3,H,W) in [-1,1] -> losses."""
        config, count, device = self.config, len(lq_latents), lq_latents.device
        rolled = slice(0, math.floor(count * config.rollout_share) if config.rollout_steps > 1 else 0)
        t = torch.rand(count, generator=generator, device=device).clamp_min(1e-4)
        t[rolled.stop : rolled.stop + math.ceil(count * config.start_share)] = 1.0
        decoded = slice(0, math.ceil(count * config.perceptual_share) if self.autoencoder is not None else 0)
        noise = torch.randn(clean_latents.shape, generator=generator, device=device)
        drawn = torch.rand(2, count, 1, 1, generator=generator, device=device)
        keep_condition, keep_queries = drawn[0] >= config.condition_dropout, drawn[1] >= config.query_dropout
        start = lq_latents if self.start_from_lq else torch.zeros_like(lq_latents)
        x_1 = flow.source(start, noise, self.noise_scale)
        x_t = flow.interpolate(clean_latents, x_1, t)
        condition = self.connectors(queries * keep_queries, embed_latents(self.transformer, lq_latents))
        told = Conditions(lq_latents=lq_latents, condition=condition * keep_condition)
        if rolled.stop:
            x_t[rolled], t[rolled] = self._rollout(told.select(rolled), start[rolled], x_1[rolled], generator)
        velocity = conditional_velocity(self.transformer, told, start, residual_std=self.residual_std)(x_t, t)
        estimate = flow.clean_estimate(x_t, velocity, t)
        # The velocity's error is the clean latent's over t. Where the sampler went, x_t knows no more of the clean
        # latent than the source did, so its error counts as there.
        over = t.clamp_min(config.minimum_time)
        over[rolled] = 1.0
        losses = {"flow": ((estimate - clean_latents) / flow.expand_time(over, estimate)).square().mean()}
        total = losses["flow"]
        if self.discriminator is not None:
            losses["discriminator"], direction = adversarial_losses(
                self.discriminator, clean_latents, estimate, start, generator
            )
            weight = config.adversarial_weight * min(1.0, step / max(1, config.adversarial_warmup))
            # 2 |estimate - clean| is how long the squared error's gradient is, a sample; both are then means.
            length = 2 * (estimate - clean_latents).detach().flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            total = total + losses["discriminator"] + pull(direction, estimate, weight * length)
        if decoded.stop:
            inner = slice(config.decoded_margin, clean_latents.shape[-1] - config.decoded_margin)
            margin = config.decoded_margin * (targets.shape[-1] // clean_latents.shape[-1])
            seen = slice(margin, targets.shape[-1] - margin)
            made, truth = self.decode(estimate[decoded, :, inner, inner]), targets[decoded, :, seen, seen]
            if self.input_skip is not None and images is not None:
                made = self.input_skip(made, images[decoded, :, seen, seen])
            if self.perceptual is not None:
                views = random_view(made, truth, generator)
                losses["lpips"] = self.perceptual(*views).mean()
                total = total + config.perceptual_weight * losses["lpips"]
            if self.identity is not None:
                kept = min(len(made), math.ceil(count * config.identity_share))
                # bf16 buys nothing in a network of depthwise convolutions, and costs digits of a small angle.
                with torch.autocast(device.type, enabled=False):
                    losses |= self.identity(made[:kept].float(), truth[:kept], generator, margin=margin)
                total = total + config.identity_weight * losses["identity"]
                total = total + config.features_weight * losses["features"]
        if self.autoencoder is not None and config.decoder_weight > 0:
            losses["decoder"] = F.l1_loss(self.decode(clean_latents[-2:]), targets[-2:])
            total = total + config.decoder_weight * losses["decoder"]
        return losses | {"loss": total}

    @torch.no_grad()
    def _rollout(
        self, told: Conditions, start: Tensor, x_1: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, float]:
        """Where a sampler of ``rollout_steps`` steps is after some of them, and the time there.

        In training the points of the path come from the clean latent, in use from the sampler's own earlier answers: so
        its later steps are trained where they will be asked (as DMD2 does, arXiv 2405.14867, section 4.5).
        """
        steps = self.config.rollout_steps
        walked = int(torch.randint(1, steps, (), generator=generator, device=generator.device))
        times = sampler.flow_times(steps)[: walked + 1]
        velocity = conditional_velocity(self.transformer, told, start, residual_std=self.residual_std)
        with torch.compiler.set_stance("force_eager"):
            x = sampler.euler(velocity, x_1, times)
        torch.clear_autocast_cache()  # weights that were cast without a gradient are not to be used again
        return x, times[-1]
