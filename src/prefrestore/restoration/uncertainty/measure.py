"""The spread of one face's restorations, measured: which one is shown, the numbers, and the map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrestore.errors import PrefRestoreError
from prefrestore.faces.detect import FaceDetector
from prefrestore.faces.identity import IdentityEmbedder
from prefrestore.metrics import spread
from prefrestore.restoration.options import Choice
from prefrestore.restoration.uncertainty import select
from prefrestore.restoration.uncertainty.sampling import Samples

LANDMARK_SIDE = 512


@dataclass(frozen=True, kw_only=True)
class FaceSpread:
    """How far N restorations of one face lie apart. A measure that could not be made is None, and says why."""

    samples: int
    chosen: int
    """Number of the sample that is shown, from 0."""
    seed: int
    """Its seed: an ordinary run with it gives the same face."""
    choice: Choice
    pixel_std_mean: float
    """Over the seeds; pixels in 0..1."""
    pixel_std_max: float
    identity_distance: float
    """Mean over pairs of 1 - cosine (SFace)."""
    lpips_distance: float | None
    """Mean over pairs (AlexNet)."""
    landmark_std: float | None
    """YuNet's five points, px at 512."""
    latent_entropy: float
    """Nats a dimension."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    map: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    """S x S: the standard deviation over views of the moved face, pixels in 0..1; None if they were not made."""

    def as_dict(self) -> dict[str, Any]:
        """The numbers as JSON holds them."""
        return {
            "samples": self.samples,
            "choice": self.choice,
            "chosen": self.chosen,
            "chosen_seed": self.seed,
            "pixel_std_mean": round(self.pixel_std_mean, 6),
            "pixel_std_max": round(self.pixel_std_max, 6),
            "map_std_mean": None if self.map is None else round(float(self.map.mean()), 6),
            "map_std_max": None if self.map is None else round(float(self.map.max()), 6),
            "pairwise_identity_distance": round(self.identity_distance, 6),
            "pairwise_lpips": None if self.lpips_distance is None else round(self.lpips_distance, 6),
            "landmark_std_px_512": None if self.landmark_std is None else round(self.landmark_std, 4),
            "latent_entropy_nats": round(self.latent_entropy, 4),
            "reasons": dict(self.reasons),
        }


def measure_spread(
    samples: Samples,
    seeds: Sequence[int],
    points: NDArray[np.float64],
    *,
    choice: Choice,
    detector: FaceDetector,
    embedder: IdentityEmbedder,
) -> FaceSpread:
    """Measure N samples of one face, and choose one.

    Args:
        samples: two or more, as they would be shown.
        seeds: of the samples.
        points: the input's five points in the crop, 5 x 2 px.
        choice: ``first``; ``medoid``, least in the sum of mean absolute pixel difference and identity distance, each
            in units of its own mean over the pairs; ``best``, highest with the bundled preference scorer.

    Raises:
        WeightsError: ``best`` without the scorer's weights.
    """
    images = samples.images
    shown = np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)
    identity = spread.cosine_distances([embedder.embed(image, points) for image in shown])
    if choice == "medoid":
        chosen = select.medoid(select.joined(spread.pixel_distances(images), identity))
    elif choice == "best":
        chosen = select.highest(_scores(images))
    else:
        chosen = 0
    reasons: dict[str, str] = {}
    std = spread.pixel_std(images)
    return FaceSpread(
        samples=len(images),
        chosen=chosen,
        seed=seeds[chosen],
        choice=choice,
        pixel_std_mean=float(std.mean()),
        pixel_std_max=float(std.max()),
        identity_distance=spread.pairwise_mean(identity),
        lpips_distance=_lpips_distance(images, reasons),
        landmark_std=_landmark_std(shown, detector, reasons),
        latent_entropy=spread.latent_entropy(samples.latents),
        reasons=reasons,
        map=None if samples.views is None else spread.pixel_std(samples.views),
    )


def _landmark_std(shown: NDArray[np.uint8], detector: FaceDetector, reasons: dict[str, str]) -> float | None:
    found = [detector.detect(image) for image in shown]
    # A crop may show a neighbour's face too; its own is the largest.
    points = [max(faces, key=lambda face: face.box[2]).points for faces in found if faces]
    if len(points) < len(shown):
        reasons["landmark_std_px_512"] = f"no face was found in {len(shown) - len(points)} of {len(shown)} samples"
        return None
    return spread.landmark_std(points) * LANDMARK_SIDE / shown.shape[1]


def _lpips_distance(images: NDArray[np.float32], reasons: dict[str, str]) -> float | None:
    import torch

    try:
        # A network for pictures too small for it, or without its weights, says so in one sentence.
        pictures = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2) * 2 - 1
        return spread.pairwise_mean(spread.lpips_distances(_lpips(), pictures))
    except PrefRestoreError as error:
        reasons["pairwise_lpips"] = str(error)
        return None


@cache
def _lpips() -> Any:
    from prefrestore.metrics.lpips import LPIPS

    return LPIPS("alex")


def _scores(images: NDArray[np.float32]) -> NDArray[np.float64]:
    import torch

    from prefrestore.models.scorer import score_all

    pictures = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return score_all(_scorer(), pictures).double().numpy()


@cache
def _scorer() -> Any:
    from prefrestore.models.scorer import load_bundled_scorer

    return load_bundled_scorer()
