"""What the LQ encoder learns from: seeded pairs, their latents and their queries, kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from prefrestore.errors import InvalidInputError
from prefrestore.files.fingerprints import FORMAT
from prefrestore.models.semantic.queries import SemanticBranch
from prefrestore.models.texture.lq_encoder import lq_latents
from prefrestore.pipeline.inputs import prepare_faces
from prefrestore.training.components import component_folder
from prefrestore.training.identity import parameter_hash
from prefrestore.training.images import to_signed
from prefrestore.training.pairs import CHUNK, Faces, cached_pairs, degraded_batch
from prefrestore.training.processes import main_process_first

if TYPE_CHECKING:
    from prefrestore.pipeline.presets import Preset
    from prefrestore.training.encoder import Config

CAPTION_SHARE = 0.85
"""Share of the pairs whose faces have a sentence that the language model is told it."""
MOST_CODES = 2048
"""Whole numbers below it are exact in the cache's half precision."""
BRANCH = ("image_tokenizer", "text_tokenizer", "language_model")


def finished_branch(preset: Preset, folder: Path, device: torch.device) -> SemanticBranch:
    """The finished semantic branch of a working folder.

    Raises:
        WeightsError: one of its parts is missing.
    """
    from prefrestore.pipeline.components import build_components

    parts = build_components(preset, {name: component_folder(folder, name) for name in BRANCH})
    for name in ("image_tokenizer", "language_model"):
        parts[name].to(device)
    return SemanticBranch(**parts, answer_position=preset.answer_position)


class EncoderPairs:
    """The cache of a run of ``train encoder``.

    Args:
        branch: the semantic branch, for an encoder that takes queries, or None.
    """

    def __init__(
        self, config: Config, faces: Faces, autoencoder: Any, device: torch.device, branch: SemanticBranch | None
    ) -> None:
        self.config, self.faces, self.autoencoder = config, faces, autoencoder
        self.device, self.branch = device, branch
        self.arrays: Mapping[str, np.ndarray] = {}
        self.drawn: np.ndarray | None = None
        self.shares: np.ndarray | None = None

    @property
    def together(self) -> bool:
        """Whether the language model is trained with the encoder: then tokens are cached, and no queries."""
        return self.branch is not None and self.config.language_weight > 0

    def hashes(self) -> dict[str, str]:
        """Of what the cached tokens or queries come from."""
        if self.branch is None:
            return {}
        names = ("image_tokenizer",) if self.together else ("image_tokenizer", "language_model")
        return {name: parameter_hash(getattr(self.branch, name)) for name in names}

    def latents(self, images: np.ndarray) -> Tensor:
        """Pictures (B,H,W,3) uint8 -> the autoencoder's scaled latents (B,C,h,w)."""
        low = self.config.mixed_precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            pieces = to_signed(images).to(self.device).split(8)
            return torch.cat([lq_latents(self.autoencoder, None, piece) for piece in pieces])

    def written(self, lq: np.ndarray, captions: list[str | None]) -> Tensor | None:
        """The queries (B,Q,D) of degraded pictures (B,H,W,3) uint8 as restoring has them; None without a branch."""
        if self.branch is None:
            return None
        side = self.branch.image_tokenizer.config.image_size
        return self.branch.write(prepare_faces(to_signed(lq), side).to(self.device), captions).queries

    def fill(self, data: str, log: Callable[[str], None]) -> EncoderPairs:
        """Compute what is missing; ``data`` is the faces' identity. Returns self.

        Raises:
            InvalidInputError: the codebook is too large for tokens that are kept in half precision.
        """
        config = self.config
        if self.branch is not None and self.together and self.branch.image_tokenizer.config.codebook_size > MOST_CODES:
            raise InvalidInputError(f"--language-weight is for codebooks of {MOST_CODES} codes at most")
        key = {"format": FORMAT, "seed": config.seed, "degradation": config.degradation, "data": data}
        key |= {"autoencoder": parameter_hash(self.autoencoder, skip="decoder"), **self.hashes()}
        key |= {"mixed_precision": config.mixed_precision}
        folder = Path(config.output_dir) / "runs" / "encoder_pairs"
        with main_process_first():
            self.arrays = cached_pairs(
                folder, config.pairs, self._prepare, self._compute, key=key, workers=config.num_workers, log=log
            )
        if config.severe_first > 0:
            far = [
                np.square(
                    self.arrays["lq_latents"][k : k + CHUNK].astype(np.float32)
                    - self.arrays["clean_latents"][k : k + CHUNK]
                ).mean((1, 2, 3))
                for k in range(0, config.pairs, CHUNK)
            ]
            weights = np.concatenate(far) ** config.severe_first
            self.shares = weights / weights.sum()
        if self.together:  # what the faces may be told is looked up, a new sentence each time
            chunks = [(k, min(CHUNK, config.pairs - k)) for k in range(0, config.pairs, CHUNK)]
            drawn = [self.faces.draw(count, seed=config.seed, step=first) for first, count in chunks]
            self.drawn = np.concatenate(drawn)
        return self

    def _prepare(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray, list[str | None]]:
        config, faces = self.config, self.faces
        rng = np.random.default_rng([config.seed, first])
        drawn = faces.draw(last - first, seed=config.seed, step=first)
        lq, targets = degraded_batch(faces.images(drawn), config.degradation, rng)
        told = [text if rng.random() < CAPTION_SHARE else None for text in faces.captions(drawn, rng)]
        return lq, targets, told

    @torch.no_grad()
    def _compute(self, pair: tuple[np.ndarray, np.ndarray, list[str | None]]) -> dict[str, np.ndarray]:
        lq, targets, captions = pair
        arrays = {"lq_latents": self.latents(lq), "clean_latents": self.latents(targets)}
        if self.branch is not None:
            side = self.branch.image_tokenizer.config.image_size
            seen, clean = (prepare_faces(to_signed(part), side).to(self.device) for part in (lq, targets))
            if self.together:
                tokens = {"given": seen, "tokens": clean}
                arrays |= {name: self.branch.image_tokenizer.encode(part) for name, part in tokens.items()}
            else:
                arrays["written"] = self.branch.write(seen, captions).queries
                arrays["true"] = self.branch.told(seen, captions, clean)
        return {name: value.float().cpu().numpy() for name, value in arrays.items()} | {"lq": lq, "targets": targets}

    def batch(self, step: int) -> dict[str, Any]:
        """The batch of one step: what `EncoderObjective.forward` takes beside the generator."""
        config, held = self.config, self.arrays
        rng = np.random.default_rng([config.seed, 1, step])
        if self.shares is None:
            index = rng.integers(config.pairs, size=config.batch_size)
        else:
            index = rng.choice(config.pairs, size=config.batch_size, p=self.shares)
        names = ("lq_latents", "clean_latents")
        batch = {name: torch.from_numpy(held[name][index].astype(np.float32)) for name in names}
        batch |= {"images": to_signed(held["lq"][index]), "targets": to_signed(held["targets"][index])}
        if self.drawn is not None:
            tokens = {name: torch.from_numpy(held[name][index].astype(np.int64)) for name in ("given", "tokens")}
            told = self.faces.captions(self.drawn[index], rng)
            captions = [text if rng.random() < CAPTION_SHARE else None for text in told]
            return batch | tokens | {"captions": captions}
        if self.branch is not None:
            chance = rng.random((len(index), 1, 1))
            true = chance < config.true_share
            queries = np.where(true, held["true"][index], held["written"][index]).astype(np.float32)
            queries *= chance < 1 - config.query_dropout
            batch["queries"] = torch.from_numpy(queries)
        return batch
