"""Step 2, second half: the flow that adds to the posterior mean what it leaves out.

Pref-Restore trains the LQ encoder and a denoiser that already knows faces together. At compact scale the denoiser
starts from nothing, so the encoder comes first (`prefrestore.training.encoder`) and is then frozen: the latents of many
seeded pairs, and the frozen language model's states, are computed once, and every step costs only the denoiser.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.texture import flow
from prefrestore.texture.conditioning import Conditions, Connectors, conditional_velocity, embed_latents
from prefrestore.training.components import component_folder
from prefrestore.training.images import grid, to_signed
from prefrestore.training.latents import PairsConfig, latent_pairs
from prefrestore.training.loop import Trainer
from prefrestore.training.pairs import degraded_batch, load_validation
from prefrestore.training.processes import new_accelerator

if TYPE_CHECKING:
    from diffusers import SanaTransformer2DModel

    from prefrestore.evaluation.sface import SFaceNetwork
    from prefrestore.pipeline import PrefRestorePipeline
    from prefrestore.texture.autoencoder import ResidualAutoencoder


@dataclass(frozen=True, kw_only=True)
class Config(PairsConfig):
    """``prefrestore train fidelity``.

    Args:
        data: folders of aligned faces (or the layout of the project's data card).
        output_dir: the working folder, which holds the finished earlier components; ``transformer/`` and
            ``connectors/`` are written to it.
        preset: names the architecture.
        degradation: a preset of `prefrestore.degrade`.
        pairs: how many degraded pairs are cached; each is seen ``steps * batch_size / pairs`` times.
        condition_dropout: share of samples whose whole condition is zeroed (classifier-free guidance).
        query_dropout: share of samples whose queries alone are zeroed, so that the model also works without them.
        time_exponent: t = u ** time_exponent with u uniform. 1 is the paper's; below 1 more steps are spent near
            t = 1, where the LQ latent says least: a sampler of few steps lives there.
        perceptual_weight: weight of LPIPS between the decoded one-step estimate and the clean image.
        perceptual_share: share of each batch that is decoded for it, at t = 1: what one step of the sampler shows.
        identity_weight: weight of one minus the SFace cosine between the decoded estimate and the clean image.
        identity_share: share of each batch that it is computed for, among those that are decoded.
        decoder_weight: weight of the decoder's own loss, L1 on the clean latents of two samples; above zero the
            decoder is trained with the flow, so that it renders restored latents well too. 0 leaves it frozen.
        gradient_checkpointing: compute the denoiser's activations twice instead of keeping them.
        start_from: a working folder whose ``transformer/`` and ``connectors/`` are the first weights.
    """

    steps: int = 780
    batch_size: int = 16
    learning_rate: float = 5e-4
    condition_dropout: float = 0.1
    query_dropout: float = 0.1
    time_exponent: float = 0.5
    perceptual_weight: float = 0.7
    perceptual_share: float = 0.6
    identity_weight: float = 0.5
    identity_share: float = 0.4
    decoder_weight: float = 1.0
    start_from: Path | None = None


class FlowObjective(nn.Module):
    """The flow loss ``mean((v - (x_1 - x_0))^2)`` under queries and LQ latents, plus losses on the decoded estimate.

    Those are LPIPS and the identity cosine; the decoder of ``autoencoder`` may be trained with them.
    """

    def __init__(
        self,
        transformer: SanaTransformer2DModel,
        connectors: Connectors,
        *,
        noise_scale: float,
        residual_std: float | None = None,
        start_from_lq: bool,
        condition_dropout: float = 0.1,
        query_dropout: float = 0.1,
        time_exponent: float = 1.0,
        autoencoder: ResidualAutoencoder | None = None,
        perceptual: nn.Module | None = None,
        perceptual_weight: float = 0.0,
        perceptual_share: float = 1.0,
        identity: SFaceNetwork | None = None,
        identity_weight: float = 0.0,
        identity_share: float = 1.0,
        decoder_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.transformer, self.connectors = transformer, connectors
        self.noise_scale, self.residual_std, self.start_from_lq = noise_scale, residual_std, start_from_lq
        self.condition_dropout, self.query_dropout = condition_dropout, query_dropout
        self.time_exponent = time_exponent
        self.perceptual_share = perceptual_share
        self.autoencoder = autoencoder
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight
        self.identity, self.identity_weight, self.identity_share = identity, identity_weight, identity_share
        self.decoder_weight = decoder_weight

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B,C,h,w) -> images (B,3,H,W), about [-1,1]."""
        assert self.autoencoder is not None
        return self.autoencoder.decode(latents / self.autoencoder.config.scaling_factor).sample.float()

    def forward(
        self, lq_latents: Tensor, clean_latents: Tensor, queries: Tensor, targets: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Scaled latents (B,C,h,w), LM states (B,Q,D), clean images (B,3,H,W) in [-1,1] -> losses."""
        count, device = len(lq_latents), lq_latents.device
        t = torch.rand(count, generator=generator, device=device).clamp_min(1e-4) ** self.time_exponent
        decoded = slice(0, math.ceil(count * self.perceptual_share) if self.autoencoder is not None else 0)
        t[decoded] = 1.0
        noise = torch.randn(clean_latents.shape, generator=generator, device=device)
        drawn = torch.rand(2, count, 1, 1, generator=generator, device=device)
        keep_condition, keep_queries = drawn[0] >= self.condition_dropout, drawn[1] >= self.query_dropout
        start = lq_latents if self.start_from_lq else torch.zeros_like(lq_latents)
        x_1 = flow.source(start, noise, self.noise_scale)
        x_t = flow.interpolate(clean_latents, x_1, t)
        condition = self.connectors(queries * keep_queries, embed_latents(self.transformer, lq_latents))
        told = Conditions(lq_latents=lq_latents, condition=condition * keep_condition)
        flowing = conditional_velocity(
            self.transformer, told, start, noise_scale=self.noise_scale, residual_std=self.residual_std
        )
        velocity = flowing(x_t, t)
        losses = {"flow": F.mse_loss(velocity, flow.velocity_target(clean_latents, x_1))}
        total = losses["flow"]
        if decoded.stop:
            images = self.decode(flow.clean_estimate(x_t[decoded], velocity[decoded], t[decoded]))
            if self.perceptual is not None:
                losses["lpips"] = self.perceptual(images, targets[decoded]).mean()
                total = total + self.perceptual_weight * losses["lpips"]
            if self.identity is not None:
                kept = min(len(images), math.ceil(count * self.identity_share))
                losses["identity"] = self._identity_loss(images[:kept], targets[:kept], generator)
                total = total + self.identity_weight * losses["identity"]
        if self.decoder_weight > 0:
            losses["decoder"] = F.l1_loss(self.decode(clean_latents[-2:]), targets[-2:])
            total = total + self.decoder_weight * losses["decoder"]
        return losses | {"loss": total}

    def _identity_loss(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """One minus the cosine, at a place and an angle that change at every step: see `crop_faces`."""
        from prefrestore.evaluation.sface import crop_faces, random_jitter

        assert self.identity is not None
        jitter = random_jitter(len(images), generator)
        # bf16 buys nothing in a network of depthwise convolutions, and costs digits of a small angle.
        with torch.autocast(images.device.type, enabled=False):
            restored = self.identity.embed_crops(crop_faces(images, jitter=jitter))
            clean = self.identity.embed_crops(crop_faces(targets, jitter=jitter))
        return 1 - (restored * clean).sum(1).mean()


def load_working_pipeline(config: Config) -> PrefRestorePipeline:
    """The finished components of ``output_dir`` around a denoiser that is new, or that of ``start_from``."""
    from diffusers import SanaTransformer2DModel
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

    from prefrestore.pipeline import PrefRestorePipeline
    from prefrestore.presets import load_preset
    from prefrestore.semantic.tokenizer import SemanticTokenizer
    from prefrestore.texture.autoencoder import ResidualAutoencoder
    from prefrestore.texture.conditioning import LatentEncoder

    preset = load_preset(config.preset)

    def finished(name: str) -> Path:
        return component_folder(config.output_dir, name)

    language_model = Qwen3ForCausalLM.from_pretrained(finished("language_model"), dtype=torch.float32)
    if config.start_from is None:
        torch.manual_seed(config.seed)  # layers draw their first weights from the global generator
        transformer = SanaTransformer2DModel(**preset.transformer)
        nn.init.zeros_(transformer.proj_out.weight)
        nn.init.zeros_(transformer.proj_out.bias)
        inner = preset.transformer["num_attention_heads"] * preset.transformer["attention_head_dim"]
        connectors = Connectors(language_model.config.hidden_size, inner, preset.transformer["caption_channels"])
    else:
        transformer = SanaTransformer2DModel.from_pretrained(component_folder(config.start_from, "transformer"))
        connectors = Connectors.from_pretrained(component_folder(config.start_from, "connectors"))
    return PrefRestorePipeline(
        image_tokenizer=SemanticTokenizer.from_pretrained(finished("image_tokenizer")).eval(),
        text_tokenizer=PreTrainedTokenizerFast.from_pretrained(finished("text_tokenizer")),
        language_model=language_model.eval(),
        connectors=connectors,
        autoencoder=ResidualAutoencoder.from_pretrained(finished("autoencoder")).eval(),
        lq_encoder=LatentEncoder.from_pretrained(finished("lq_encoder")).eval(),
        transformer=transformer,
        **preset.pipeline_config(),
    )


def run(config: Config, *, log: Callable[[str], None] = print) -> Trainer:
    """Train the denoiser and the connectors; write ``transformer/`` and ``connectors/`` under ``output_dir``."""
    pipeline = load_working_pipeline(config)
    for part in (pipeline.autoencoder, pipeline.lq_encoder, pipeline.language_model, pipeline.image_tokenizer):
        part.requires_grad_(False)
    accelerator = new_accelerator()
    pipeline.to(accelerator.device)
    pairs = latent_pairs(pipeline, config, log)
    validation = load_validation(config.data, pipeline.face_size)

    def make_batch(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([config.seed, 1, step])
        return pairs.batch(np.sort(rng.integers(len(pairs), size=config.batch_size)))

    if config.gradient_checkpointing:
        pipeline.transformer.enable_gradient_checkpointing()
    held_out = np.asarray(validation.images[:: max(1, len(validation) // 8)][:8])
    lq, targets = degraded_batch(held_out, config.degradation, np.random.default_rng(config.seed), mirror=False)

    def sample() -> Image.Image:
        mean = pipeline.decode(pipeline.encode_texture(to_signed(lq).to(pipeline.device))) * 2 - 1
        latents = pipeline(list(lq), output_type="latent").images
        restored = pipeline.decode(latents) * 2 - 1
        return grid([to_signed(lq), mean, restored, to_signed(targets)])

    perceptual = identity = None
    if config.perceptual_weight > 0:
        from prefrestore.evaluation.lpips import LPIPS

        perceptual = LPIPS("alex")
    if config.identity_weight > 0:
        from prefrestore.evaluation.sface import SFaceNetwork

        identity = SFaceNetwork()
    if config.decoder_weight > 0:
        for part in (pipeline.autoencoder.patch_decoder, pipeline.autoencoder.deep.decoder):
            part.requires_grad_(True)
    objective = FlowObjective(
        pipeline.transformer,
        pipeline.connectors,
        noise_scale=pipeline.config.noise_scale,
        residual_std=pipeline.config.residual_std,
        start_from_lq=pipeline.config.start == "lq_latent",
        condition_dropout=config.condition_dropout,
        query_dropout=config.query_dropout,
        time_exponent=config.time_exponent,
        autoencoder=pipeline.autoencoder if perceptual or identity or config.decoder_weight > 0 else None,
        perceptual=perceptual,
        perceptual_weight=config.perceptual_weight,
        perceptual_share=config.perceptual_share,
        identity=identity,
        identity_weight=config.identity_weight,
        identity_share=config.identity_share,
        decoder_weight=config.decoder_weight,
    )
    trainer = Trainer(objective, make_batch, config.loop("fidelity"), sample=sample, accelerator=accelerator)
    trainer.fit()

    def write() -> None:
        pipeline.transformer.save_pretrained(Path(config.output_dir) / "transformer")
        pipeline.connectors.save_pretrained(Path(config.output_dir) / "connectors")
        if config.decoder_weight > 0:
            pipeline.autoencoder.save_pretrained(Path(config.output_dir) / "autoencoder")

    trainer.export(write)
    return trainer
