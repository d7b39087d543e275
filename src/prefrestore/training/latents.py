"""The latents and language-model states of many seeded pairs: what the stages after the encoders learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from prefrestore.data.identity import face_identity
from prefrestore.files.fingerprints import FORMAT
from prefrestore.models.texture.lq_encoder import listens
from prefrestore.training.identity import parameter_hash
from prefrestore.training.images import to_signed
from prefrestore.training.pairs import (
    CHUNK,
    Faces,
    LatentPairs,
    cached_pairs,
    degraded_batch,
    load_training_faces,
)
from prefrestore.training.processes import main_process_first
from prefrestore.training.stage import StageConfig

if TYPE_CHECKING:
    from prefrestore.pipeline.pipeline import PrefRestorePipeline


@dataclass(frozen=True, kw_only=True)
class PairsConfig(StageConfig):
    """Fields of the stages that learn from cached pairs.

    ``silent_share`` of the pairs have queries of zeros, where the LQ encoder takes queries and makes latents of them.
    """

    degradation: str = "training"
    pairs: int = 5120
    silent_share: float = 0.1
    gradient_checkpointing: bool = False


def latent_pairs(pipeline: PrefRestorePipeline, config: PairsConfig, log: Callable[[str], None]) -> LatentPairs:
    """The cache of ``config.pairs`` seeded pairs; nine in ten of the captions that exist are told (METHOD.md)."""
    faces = load_training_faces(config.data, pipeline.face_size)

    def prepare(first: int, last: int) -> tuple[np.ndarray, np.ndarray, list[str | None]]:
        rng = np.random.default_rng([config.seed, first])
        drawn = faces.draw(last - first, seed=config.seed, step=first)
        lq, targets = degraded_batch(faces.images(drawn), config.degradation, rng)
        return lq, targets, _told(config, faces, drawn, first)

    silent = config.silent_share if listens(pipeline.lq_encoder) else 0.0

    def compute(chunk: tuple[np.ndarray, np.ndarray, list[str | None]]) -> dict[str, np.ndarray]:
        lq, targets, captions = chunk
        images, clean = (to_signed(part).to(pipeline.device) for part in (lq, targets))
        with torch.no_grad():
            queries = pipeline.encode_semantics(images, captions)
            # Every k-th, so that it does not matter how the pairs are cut into chunks of the cache's size.
            queries[torch.arange(len(queries)) % CHUNK < silent * CHUNK] = 0
            with torch.autocast(pipeline.device.type, torch.bfloat16, enabled=config.mixed_precision == "bf16"):
                lq_latents = pipeline.encode_texture(images, queries)
                clean_latents = pipeline.autoencoder.encode(clean).latent.float()
        clean_latents = clean_latents * pipeline.autoencoder.config.scaling_factor
        arrays = {"lq_latents": lq_latents, "clean_latents": clean_latents, "queries": queries}
        return {name: value.float().cpu().numpy() for name, value in arrays.items()} | {
            "targets": targets,
            "images": lq,
        }

    # Of the autoencoder only the encoder counts: this stage trains the decoder.
    names = ("lq_encoder", "image_tokenizer", "language_model", "autoencoder")
    frozen = {name: getattr(pipeline, name) for name in names if getattr(pipeline, name) is not None}
    hashes = {name: parameter_hash(module, skip="decoder") for name, module in frozen.items()}
    key = {"format": FORMAT, "seed": config.seed, "degradation": config.degradation, "hashes": hashes}
    key |= {"data": face_identity(faces), "mixed_precision": config.mixed_precision, "silent": silent}
    with main_process_first():
        folder = Path(config.output_dir) / "runs" / "pairs"
        workers = config.num_workers
        cached = cached_pairs(folder, config.pairs, prepare, compute, key=key, workers=workers, log=log)
        return LatentPairs(**cached)


def pair_captions(config: PairsConfig, size: int) -> list[str | None]:
    """What each pair of `latent_pairs` is told, None where it is told nothing; ``size`` is the faces' side."""
    faces = load_training_faces(config.data, size)
    captions: list[str | None] = []
    for first in range(0, config.pairs, CHUNK):
        drawn = faces.draw(min(CHUNK, config.pairs - first), seed=config.seed, step=first)
        captions += _told(config, faces, drawn, first)
    return captions


def _told(config: PairsConfig, faces: Faces, drawn: np.ndarray, first: int) -> list[str | None]:
    """Nine in ten of the captions that the faces of a chunk have, each in one of its phrases."""
    rng = np.random.default_rng([config.seed, 2, first])
    return [text if rng.random() < 0.9 else None for text in faces.captions(drawn, rng)]
