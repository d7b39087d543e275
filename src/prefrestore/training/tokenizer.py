"""The discrete tokenizer: reconstruct at low resolution, and say who it is and where the features lie."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.data.faces import FaceSet
from prefrestore.degrade import degrade
from prefrestore.errors import InvalidInputError
from prefrestore.files import cache
from prefrestore.files.atomic import written_beside
from prefrestore.models.semantic.quantizer import perplexity
from prefrestore.training.identity import run_identity
from prefrestore.training.images import grid, to_signed
from prefrestore.training.loop import Trainer
from prefrestore.training.pairs import load_training_mix, load_validation
from prefrestore.training.stage import StageConfig

if TYPE_CHECKING:
    from prefrestore.data.mix import FaceMix

# A mirrored face's left eye is the right eye of the original: the order of the five points after a flip.
MIRRORED_POINTS = (1, 0, 2, 4, 3)


@dataclass(frozen=True, kw_only=True)
class Config(StageConfig):
    """``prefrestore train tokenizer``.

    Args:
        data: folders of aligned faces (or the layout of the project's data card).
        output_dir: the working folder; ``image_tokenizer/`` is written to it.
        preset: names the architecture.
        degradation: a preset of `prefrestore.degrade`.
        degraded_share: share of images that are degraded first; their codes must still say who it is.
        identity_weight, points_weight, commitment_weight, entropy_weight: weights beside the reconstruction's
            1.
    """

    degradation: str = "training"
    degraded_share: float = 0.35
    identity_weight: float = 0.5
    points_weight: float = 2.0
    commitment_weight: float = 0.2
    entropy_weight: float = 0.02
    steps: int = 700
    batch_size: int = 32
    learning_rate: float = 6e-4
    sample_every: int = 400


class TokenizerObjective(nn.Module):
    """The weighted sum of the tokenizer's own ``losses``."""

    def __init__(self, tokenizer: Any, weights: dict[str, float]) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.weights = weights

    def forward(
        self, images: Tensor, identity: Tensor, points: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Images (B,3,H,W) in [-1,1], identities (B,E), points (B,P,2) as fractions -> losses."""
        del generator  # nothing in this stage is random beyond the batch
        losses = self.tokenizer.losses(images, identity, points)
        weighted = [self.weights[name] * value for name, value in losses.items()]
        return losses | {"loss": torch.stack(weighted).sum()}


def identity_targets(faces: FaceSet, cache_dir: Path | None = None) -> np.ndarray:
    """The face-recognition embedding of every face, (N,128) float32 unit vectors; computed once and kept on
    disk.

    Faces without known points are taken for FFHQ-aligned.
    """
    from prefrestore.faces.identity import IdentityEmbedder

    digest = hashlib.sha256(faces.points.tobytes())
    for face in faces.images:
        digest.update(np.ascontiguousarray(face[::16, ::16]).tobytes())
    path = (cache_dir or cache.cache_dir()) / f"identity-{faces.size}-{digest.hexdigest()[:20]}.npy"
    if not path.is_file():
        embedder = IdentityEmbedder()
        rows = [
            embedder.embed(np.ascontiguousarray(image), None if np.isnan(points).any() else points)
            for image, points in zip(faces.images, faces.points, strict=True)
        ]
        with written_beside(path) as part:
            np.save(part, np.stack(rows))
    return np.load(path)


def training_batch(faces: FaceMix, identities: list[np.ndarray], config: Config, step: int) -> dict[str, Tensor]:
    """The batch of one step: mirrored half the time, degraded in ``degraded_share`` of cases."""
    rng = np.random.default_rng([config.seed, step])
    pairs = faces.draw(config.batch_size, seed=config.seed, step=step)
    images, points, identity = [], [], []
    for index, row in pairs:
        source = faces.sets[index]
        image, at = source.images[row], source.points[row] / np.float32(source.size)
        if rng.random() < 0.5:
            image, at = image[:, ::-1], (at * (-1, 1) + (1, 0))[list(MIRRORED_POINTS)]
        if rng.random() < config.degraded_share:
            image = degrade(np.ascontiguousarray(image), config.degradation, rng).lq
        images.append(image)
        points.append(at)
        identity.append(identities[index][row])
    return {
        "images": to_signed(np.stack(images)),
        "identity": torch.from_numpy(np.stack(identity)),
        "points": torch.from_numpy(np.stack(points).astype(np.float32)),
    }


@torch.no_grad()
def measure_codes(
    tokenizer: Any, images: Tensor, identity: Tensor, points: Tensor, batch: int = 32
) -> dict[str, float]:
    """What the codes of held-out faces keep.

    Returns:
        ``perplexity`` of the codes (1 to the codebook's size), ``psnr`` of the low-resolution reconstruction
        in dB, ``identity`` (mean cosine with the face-recognition embedding), ``points`` (mean distance as a
        fraction of the side; NaN without known points).
    """
    images, identity, points = (part.to(tokenizer.device) for part in (images, identity, points))
    indices = torch.cat([tokenizer.encode(piece) for piece in images.split(batch)])
    parts = [tokenizer.decode(piece) for piece in indices.split(batch)]
    low = torch.cat([part.low_resolution for part in parts])
    target = F.interpolate(images, size=low.shape[-2:], mode="area")
    error = ((low.clamp(-1, 1) - target) / 2).square().flatten(1).mean(1)
    distance = (torch.cat([part.points for part in parts]) - points).norm(dim=-1)
    return {
        "perplexity": perplexity(indices, tokenizer.config.codebook_size).item(),
        "psnr": (-10 * torch.log10(error)).mean().item(),
        "identity": (torch.cat([part.identity for part in parts]) * identity).sum(1).mean().item(),
        "points": distance.nanmean().item(),
    }


def run(config: Config, *, log: Callable[[str], None] = print) -> Trainer:
    """Train the tokenizer and write ``output_dir/image_tokenizer``."""
    from prefrestore.pipeline.components import build_component, component_class
    from prefrestore.pipeline.presets import load_preset

    preset = load_preset(config.preset)
    if not hasattr(component_class(preset.component("image_tokenizer").class_name), "losses"):
        raise InvalidInputError(
            f"the image tokenizer of the preset '{preset.name}' is not trained here: put its finished one into "
            f"{config.output_dir / 'image_tokenizer'}, as `prefrestore convert` writes it"
        )
    tokenizer = build_component(preset, "image_tokenizer", trained=["image_tokenizer"])
    tokenizer.initialise(torch.Generator().manual_seed(config.seed))
    size = tokenizer.config.image_size
    faces = load_training_mix(config.data, size)
    validation = load_validation(config.data, size)
    log("face-recognition embeddings of the training faces")
    identities = [identity_targets(part) for part in faces.sets]
    held_out = to_signed(np.asarray(validation.images))
    identity = torch.from_numpy(identity_targets(validation))
    points = torch.from_numpy(validation.points / np.float32(size))
    mean_identity = F.normalize(torch.from_numpy(np.concatenate(identities)).mean(0), dim=0)
    log(f"the mean identity's cosine with the validation faces: {(identity @ mean_identity).mean():.3f}")

    def sample() -> Image.Image:
        values = measure_codes(tokenizer, held_out, identity, points)
        log("validation " + " ".join(f"{name} {value:.4f}" for name, value in values.items()))
        shown = held_out[:: max(1, len(held_out) // 12)][:12].to(tokenizer.device)
        low = tokenizer.decode(tokenizer.encode(shown)).low_resolution
        return grid([F.interpolate(shown, size=low.shape[-2:], mode="area"), low])

    loop = config.loop(
        "tokenizer",
        ema_decay=0.995,
    )
    weights = {
        "pixel": 1.0,
        "identity": config.identity_weight,
        "points": config.points_weight,
        "commitment": config.commitment_weight,
        "entropy_gap": config.entropy_weight,
    }
    objective = TokenizerObjective(tokenizer, weights)
    run_of = run_identity("tokenizer", config, faces)
    trainer = Trainer(
        objective, lambda step: training_batch(faces, identities, config, step), loop, sample=sample, identity=run_of
    )
    trainer.fit()
    trainer.export(config.output_dir, {"image_tokenizer": tokenizer.save_pretrained})
    return trainer
