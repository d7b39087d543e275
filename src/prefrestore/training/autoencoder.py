"""Stage 0: the autoencoder. The linear transform is solved for, the deep residual is trained by gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.errors import InvalidInputError
from prefrestore.training.identity import run_identity
from prefrestore.training.images import grid, random_crops, to_signed
from prefrestore.training.loop import Trainer
from prefrestore.training.pairs import load_training_mix, load_validation
from prefrestore.training.stage import StageConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Config(StageConfig):
    """``prefrestore train autoencoder``.

    Args:
        data: folders of aligned faces (or the layout of the project's data card).
        output_dir: where checkpoints, grids and the finished ``autoencoder/`` folder go.
        preset: names the architecture.
        crop: side of the training crops in pixels; the net is convolutional, so small crops are cheap and enough.
        perceptual_weight: weight of LPIPS in the loss; 0 needs no LPIPS weights.
        latent_noise: standard deviation of noise added to latents before decoding, so that the decoder forgives
            the small errors of a sampler.
    """

    steps: int = 1000
    batch_size: int = 16
    crop: int = 128
    learning_rate: float = 4e-4
    perceptual_weight: float = 0.0
    latent_noise: float = 0.03


class AutoencoderObjective(nn.Module):
    """L1 in [-1,1] plus, if asked, LPIPS, on noisy latents."""

    def __init__(self, autoencoder: Any, *, latent_noise: float, perceptual: nn.Module | None, weight: float) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.latent_noise = latent_noise
        self.perceptual = perceptual
        self.weight = weight

    def forward(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Images (B,3,H,W) in [-1,1] -> losses."""
        latent = self.autoencoder.encode(images).latent
        noise = torch.randn(latent.shape, generator=generator, device=latent.device)
        rebuilt = self.autoencoder.decode(latent + self.latent_noise * noise).sample.float()
        losses = {"l1": F.l1_loss(rebuilt, images), "mse": F.mse_loss(rebuilt, images)}
        total = losses["l1"]
        if self.perceptual is not None:
            losses["lpips"] = self.perceptual(rebuilt, images).mean()
            total = total + self.weight * losses["lpips"]
        return losses | {"loss": total}


def round_trip_psnr(autoencoder: Any, faces: np.ndarray, batch: int = 8) -> float:
    """Mean PSNR in dB of decode(encode(x)) over faces (N,H,W,3) uint8, in float32 and rounded to 8 bits."""
    values = []
    with torch.no_grad():
        for start in range(0, len(faces), batch):
            images = to_signed(faces[start : start + batch]).to(autoencoder.device)
            rebuilt = ((autoencoder.decode(autoencoder.encode(images).latent).sample + 1) * 127.5).round().clamp(0, 255)
            error = ((images + 1) * 127.5 - rebuilt).square().flatten(1).mean(1)
            values.append(10 * torch.log10(255**2 / error.clamp_min(1e-9)))
    return float(torch.cat(values).mean())


def train(
    autoencoder: Any,
    faces: np.ndarray,
    validation: np.ndarray,
    config: Config,
    perceptual: nn.Module | None = None,
    log: Callable[[str], None] = print,
    *,
    shares: np.ndarray | None = None,
    identity: Mapping[str, Any] | None = None,
) -> Trainer:
    """Train ``autoencoder`` in place on faces (N,H,W,3) uint8; returns the trainer, its averaged weights in place.

    ``shares`` (N,) adds up to 1 and says how often each face is drawn; None draws all alike.
    """
    loop = config.loop(
        "autoencoder",
        weight_decay=0.0,
    )
    rng = np.random.default_rng(config.seed)
    chosen = np.sort(rng.choice(len(faces), size=min(len(faces), 600), replace=False, p=shares))
    if hasattr(autoencoder, "initialise_from_patches"):  # diffusers' own begin as they are
        psnr = autoencoder.initialise_from_patches(to_signed(faces[chosen]))
        log(f"linear transform alone: {psnr:.2f} dB on training patches")

    def make_batch(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([config.seed, step])
        if shares is None:
            index = rng.integers(len(faces), size=config.batch_size)
        else:
            index = rng.choice(len(faces), size=config.batch_size, p=shares)
        return {"images": to_signed(random_crops(faces, index, config.crop, rng))}

    def sample() -> Image.Image:
        images = to_signed(validation[:8]).to(autoencoder.device)
        log(f"round trip on validation: {round_trip_psnr(autoencoder, validation[:64]):.2f} dB")
        return grid([images, autoencoder.decode(autoencoder.encode(images).latent).sample])

    objective = AutoencoderObjective(
        autoencoder, latent_noise=config.latent_noise, perceptual=perceptual, weight=config.perceptual_weight
    )
    trainer = Trainer(objective, make_batch, loop, sample=sample, identity=identity)
    trainer.fit()
    return trainer


def run(config: Config, *, log: Callable[[str], None] = print) -> Trainer:
    """Train a new autoencoder of the preset's architecture and write ``output_dir/autoencoder``."""
    from prefrestore.pipeline.components import build_component
    from prefrestore.pipeline.presets import load_preset

    preset = load_preset(config.preset)
    if config.crop > preset.face_size:
        raise InvalidInputError(f"--crop {config.crop} is larger than the faces of {preset.face_size} px")
    mixed = load_training_mix(config.data, preset.face_size)
    faces = np.concatenate([np.asarray(part.images) for part in mixed.sets])
    validation = np.asarray(load_validation(config.data, preset.face_size).images)
    autoencoder = build_component(preset, "autoencoder", trained=["autoencoder"], seed=config.seed)
    perceptual = None
    if config.perceptual_weight > 0:
        from prefrestore.metrics.lpips import LPIPS

        perceptual = LPIPS("alex").requires_grad_(False)
    identity = run_identity("autoencoder", config, mixed)
    trainer = train(
        autoencoder, faces, validation, config, perceptual, log, shares=mixed.face_shares(), identity=identity
    )

    def write(folder: Path) -> None:
        log(f"round trip on all {len(validation)} validation faces: {round_trip_psnr(autoencoder, validation):.2f} dB")
        autoencoder.save_pretrained(folder)

    trainer.export(config.output_dir, {"autoencoder": write})
    return trainer
