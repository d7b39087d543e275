"""Step 2, first half: the LQ encoder learns the posterior mean of the clean latent.

The autoencoder is frozen, so the latents of many seeded pairs are computed once, and a step costs only the LQ encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.training.components import component_folder
from prefrestore.training.images import grid, to_signed
from prefrestore.training.loop import Trainer
from prefrestore.training.pairs import (
    cached_pairs,
    degraded_batch,
    load_training_faces,
    load_validation,
    parameter_hash,
)
from prefrestore.training.processes import main_process_first, new_accelerator
from prefrestore.training.stage import StageConfig

if TYPE_CHECKING:
    from prefrestore.models.texture.lq_encoder import LatentEncoder


@dataclass(frozen=True, kw_only=True)
class Config(StageConfig):
    """The encoder's half of ``prefrestore train fidelity``.

    Args:
        data: folders of aligned faces (or the layout of the project's data card).
        output_dir: the working folder; ``autoencoder/`` is read from it, ``lq_encoder/`` written to it.
        preset: names the architecture.
        degradation: a preset of `prefrestore.degrade`.
        pairs: how many degraded pairs are cached; each is seen ``steps * batch_size / pairs`` times.
        start_from: a working folder whose ``lq_encoder/`` gives the first weights.
    """

    degradation: str = "training"
    pairs: int = 12288
    steps: int = 2400
    batch_size: int = 16
    learning_rate: float = 6e-4
    start_from: Path | None = None


class EncoderObjective(nn.Module):
    """``mean((z_LQ - z_HQ)^2)`` (Pref-Restore, arXiv 2601.19506, step 2)."""

    def __init__(self, lq_encoder: LatentEncoder) -> None:
        super().__init__()
        self.lq_encoder = lq_encoder

    def forward(self, lq_latents: Tensor, clean_latents: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The autoencoder's latents of LQ and clean images (B,C,h,w) -> losses."""
        del generator  # a regression has no noise of its own
        return {"loss": F.mse_loss(self.lq_encoder.encode(lq_latents).float(), clean_latents)}


def run(config: Config, *, log: Callable[[str], None] = print) -> Trainer:
    """Train the LQ encoder behind the finished autoencoder and write ``output_dir/lq_encoder``."""
    from prefrestore.models.texture.autoencoder import ResidualAutoencoder
    from prefrestore.models.texture.lq_encoder import LatentEncoder, lq_latents
    from prefrestore.pipeline.presets import load_preset

    preset = load_preset(config.preset)
    accelerator = new_accelerator()
    folder = component_folder(config.output_dir, "autoencoder")
    autoencoder = ResidualAutoencoder.from_pretrained(folder, torch_dtype=torch.float32).eval().requires_grad_(False)
    autoencoder.to(accelerator.device)
    if config.start_from is None:
        torch.manual_seed(config.seed)  # layers draw their first weights from the global generator
        lq_encoder = LatentEncoder(**preset.lq_encoder)
    else:
        first = component_folder(config.start_from, "lq_encoder")
        lq_encoder = LatentEncoder.from_pretrained(first, torch_dtype=torch.float32)
    faces = load_training_faces(config.data, preset.face_size)
    validation = load_validation(config.data, preset.face_size)

    def encode(images: np.ndarray) -> Tensor:
        with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=config.mixed_precision == "bf16"):
            pieces = to_signed(images).to(accelerator.device).split(8)
            return torch.cat([lq_latents(autoencoder, None, piece) for piece in pieces])

    @torch.no_grad()
    def compute(first: int, last: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([config.seed, first])
        drawn = faces.images(faces.draw(last - first, seed=config.seed, step=first))
        lq, targets = degraded_batch(drawn, config.degradation, rng)
        return {"lq_latents": encode(lq).cpu().numpy(), "clean_latents": encode(targets).cpu().numpy()}

    key = {"seed": config.seed, "degradation": config.degradation}
    key |= {"autoencoder": parameter_hash(autoencoder, skip="decoder")}
    with main_process_first():
        cache = Path(config.output_dir) / "runs" / "encoder_pairs"
        pairs = cached_pairs(cache, config.pairs, compute, key=key, log=log)

    def make_batch(step: int) -> dict[str, Tensor]:
        index = np.random.default_rng([config.seed, 1, step]).integers(config.pairs, size=config.batch_size)
        return {name: torch.from_numpy(array[index].astype(np.float32)) for name, array in pairs.items()}

    held_out = np.asarray(validation.images[:: max(1, len(validation) // 32)][:32])
    lq, targets = degraded_batch(held_out, config.degradation, np.random.default_rng(config.seed), mirror=False)

    @torch.no_grad()
    def sample() -> Image.Image:
        means = lq_encoder.encode(encode(lq))
        log(f"validation latent error {F.mse_loss(means, encode(targets)).item():.4f}")
        decoded = autoencoder.decode(means[:8] / autoencoder.config.scaling_factor).sample
        return grid([to_signed(lq[:8]), decoded, to_signed(targets[:8])])

    loop = config.loop("encoder")
    trainer = Trainer(EncoderObjective(lq_encoder), make_batch, loop, sample=sample, accelerator=accelerator)
    trainer.fit()
    trainer.export(lambda: lq_encoder.save_pretrained(config.output_dir / "lq_encoder"))
    return trainer
