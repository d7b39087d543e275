"""Step 2, first half: the LQ encoder learns the posterior mean of the clean latent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.training.components import component_folder
from prefrestore.training.images import grid, to_signed
from prefrestore.training.loop import Trainer
from prefrestore.training.pairs import degraded_batch, load_training_faces, load_validation
from prefrestore.training.stage import StageConfig

if TYPE_CHECKING:
    from prefrestore.texture.autoencoder import ResidualAutoencoder
    from prefrestore.texture.conditioning import LatentEncoder


@dataclass(frozen=True, kw_only=True)
class Config(StageConfig):
    """The encoder's half of ``prefrestore train fidelity``.

    Args:
        data: folders of aligned faces (or the layout of the project's data card).
        output_dir: the working folder; ``autoencoder/`` is read from it, ``lq_encoder/`` written to it.
        preset: names the architecture.
        degradation: a preset of `prefrestore.degrade`.
    """

    degradation: str = "training"
    steps: int = 900
    batch_size: int = 16
    learning_rate: float = 4e-4
    sample_every: int = 250


class EncoderObjective(nn.Module):
    """``mean((z_LQ - z_HQ)^2)`` (Pref-Restore, arXiv 2601.19506, step 2), the targets from a frozen encoder."""

    def __init__(self, lq_encoder: LatentEncoder, autoencoder: ResidualAutoencoder) -> None:
        super().__init__()
        self.lq_encoder = lq_encoder
        self.autoencoder = autoencoder.requires_grad_(False)

    def forward(self, lq: Tensor, targets: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """LQ images and clean images (B,3,H,W) in [-1,1] -> losses."""
        del generator  # a regression has no noise of its own
        with torch.no_grad():
            clean = self.autoencoder.encode(targets).latent.float()
        return {"loss": F.mse_loss(self.lq_encoder.encode(lq).latent.float(), clean)}


def run(config: Config, *, log: Callable[[str], None] = print) -> Trainer:
    """Train the LQ encoder from the finished autoencoder and write ``output_dir/lq_encoder``."""
    from prefrestore.presets import load_preset
    from prefrestore.texture.autoencoder import ResidualAutoencoder
    from prefrestore.texture.conditioning import LatentEncoder

    preset = load_preset(config.preset)
    autoencoder = ResidualAutoencoder.from_pretrained(component_folder(config.output_dir, "autoencoder")).eval()
    torch.manual_seed(config.seed)  # layers draw their first weights from the global generator
    lq_encoder = LatentEncoder(**preset.lq_encoder)
    lq_encoder.initialise_from(autoencoder)
    faces = load_training_faces(config.data, preset.face_size)
    validation = load_validation(config.data, preset.face_size)

    def make_batch(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([config.seed, step])
        drawn = faces.images(faces.draw(config.batch_size, seed=config.seed, step=step))
        lq, targets = degraded_batch(drawn, config.degradation, rng)
        return {"lq": to_signed(lq), "targets": to_signed(targets)}

    held_out = np.asarray(validation.images[:: max(1, len(validation) // 32)][:32])
    lq_val, target_val = map(
        to_signed, degraded_batch(held_out, config.degradation, np.random.default_rng(config.seed), mirror=False)
    )

    def sample() -> Image.Image:
        means = [lq_encoder.encode(piece.to(lq_encoder.device)).latent for piece in lq_val.split(8)]
        clean = [autoencoder.encode(piece.to(autoencoder.device)).latent for piece in target_val.split(8)]
        log(f"validation latent error {F.mse_loss(torch.cat(means), torch.cat(clean)).item():.4f}")
        return grid([lq_val[:8], autoencoder.decode(means[0]).sample, target_val[:8]])

    loop = config.loop(
        "encoder",
    )
    trainer = Trainer(EncoderObjective(lq_encoder, autoencoder), make_batch, loop, sample=sample)
    trainer.fit()
    trainer.export(lambda: lq_encoder.save_pretrained(config.output_dir / "lq_encoder"))
    return trainer
