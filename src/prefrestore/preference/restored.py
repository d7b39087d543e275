"""Ladders made by a restorer: the sharp face over its restorations, the less damaged input's over the other's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from prefrestore.data.identity import face_identity
from prefrestore.files.atomic import written_beside
from prefrestore.files.fingerprints import digest
from prefrestore.preference.known_order import CHAINS, MILDER, degraded

if TYPE_CHECKING:
    from prefrestore.data.faces import FaceSet
    from prefrestore.pipeline.pipeline import PrefRestorePipeline

SETTINGS = ((1, 0.0), (1, 0.3), (1, 1.0), (3, 0.0))
"""(steps, fidelity): as sharp as one step makes it, the compact default, the smooth posterior mean, and three steps."""

CHUNK = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class RestoredLadders:
    """pictures: uint8 (N, 2 + 2 S, H, W, 3): the face, its round trip through the autoencoder, then for each of the S
    `SETTINGS` the restoration of the weaker and of the stronger degradation. rows: which face each came from."""

    pictures: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pictures)

    def ladder(self, index: int, setting: int) -> npt.NDArray[np.uint8]:
        """The sharp face and its two restorations at one setting (3,H,W,3), best first."""
        return self.pictures[index][[0, 2 + 2 * setting, 3 + 2 * setting]]

    def round_trip(self, index: int) -> npt.NDArray[np.uint8]:
        """The face and what the autoencoder makes of it (2,H,W,3): hardly to be told apart."""
        return self.pictures[index][:2]


@torch.no_grad()
def restore_versions(
    pipeline: PrefRestorePipeline, face: npt.NDArray[np.uint8], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """One face (S,S,3) uint8 -> a row of `RestoredLadders` at the face's size; equal seeds, equal bytes."""
    target, weak, strong = degraded(face, rng)
    conditions = pipeline.conditions(pipeline.prepare([weak, strong]))
    # One noise for both inputs: what differs between the two restorations is the input alone.
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    noise = torch.randn((1, *conditions.lq_latents.shape[1:]), generator=generator).expand_as(conditions.lq_latents)
    clean = pipeline.prepare(target)
    rows = [clean.add(1).div(2), pipeline.decode(_encode(pipeline, clean))]
    sampled = {steps: pipeline.sample(conditions, noise, steps, fidelity=0.0) for steps, _ in SETTINGS}
    for steps, fidelity in SETTINGS:
        rows.append(pipeline.decode(torch.lerp(sampled[steps], conditions.lq_latents, fidelity), conditions))
    return _to_uint8(torch.cat([row.float() for row in rows]), len(face))


def _encode(pipeline: PrefRestorePipeline, images: Tensor) -> Tensor:
    latents = pipeline.autoencoder.encode(images.to(pipeline.autoencoder.dtype)).latent
    return latents.float() * pipeline.autoencoder.config.scaling_factor


def _to_uint8(images: Tensor, size: int) -> npt.NDArray[np.uint8]:
    if images.shape[-1] != size:
        images = F.interpolate(images, size=(size, size), mode="bicubic", antialias=True)
    return images.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def restored_ladders(
    load: Callable[[], PrefRestorePipeline],
    weights: object,
    faces: FaceSet,
    folder: Path,
    *,
    count: int,
    seed: int,
    bf16: bool = False,
    log: Callable[[str], None] = print,
) -> RestoredLadders:
    """Restore ``count`` faces, drawn in a seeded order, keeping them under ``folder`` chunk by chunk.

    A build that was stopped goes on at the chunk it was at, and a greater ``count`` keeps what is there; other weights
    or seeds get a folder of their own.

    Args:
        load: makes the pipeline, and is called only when a chunk is missing.
        weights: what tells this restorer from another, for example the hashes of its files.
        faces: N sharp faces; ``count`` above N repeats them with other degradations.
        bf16: run the restorer under bf16 autocast, about twice as fast on CPUs that have it.
    """
    order = np.random.default_rng(seed).permutation(len(faces))
    rows = order[np.arange(count) % len(faces)]
    key = digest([weights, seed, bf16, SETTINGS, CHAINS, MILDER, face_identity(faces)])
    place = folder / f"restored-{key[:16]}"
    pipeline: PrefRestorePipeline | None = None
    chunks = []
    for first in range(0, count, CHUNK):
        last = min(first + CHUNK, count)
        path = place / f"{first:05d}-{last:05d}.npy"
        if not path.is_file():
            pipeline = pipeline or load()
            made = []
            for index in range(first, last):
                face, rng = np.array(faces.images[rows[index]]), np.random.default_rng([seed, index])
                with torch.autocast(pipeline.device.type, torch.bfloat16, enabled=bf16):
                    made.append(restore_versions(pipeline, face, rng))
            with written_beside(path) as part:
                np.save(part, np.stack(made))
            log(f"restored {last}/{count} faces")
        chunks.append(np.load(path))
    return RestoredLadders(pictures=np.concatenate(chunks), rows=rows)
