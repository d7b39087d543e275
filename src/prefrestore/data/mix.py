"""Batches drawn from several sets of faces; what is drawn depends on (seed, step) only, so training can
resume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prefrestore.data.faces import FaceSet
from prefrestore.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceMix:
    """sets: faces of one size. weights: how often each set is drawn from, any positive scale."""

    sets: tuple[FaceSet, ...]
    weights: tuple[float, ...]

    def draw(self, count: int, *, seed: int, step: int) -> npt.NDArray[np.int64]:
        """count,2 pairs (set, row), drawn with replacement from the generator of (seed, step)."""
        rng = np.random.default_rng([seed, step])
        shares = np.asarray(self.weights) / sum(self.weights)
        chosen = rng.choice(len(self.sets), size=count, p=shares)
        lengths = np.array([len(faces) for faces in self.sets])
        rows = np.floor(rng.random(count) * lengths[chosen]).astype(np.int64)
        return np.stack([chosen, rows], axis=1)

    def images(self, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """uint8 count,H,W,3 for the `pairs` that `draw` gave."""
        return np.stack([self.sets[index].images[row] for index, row in pairs])

    def captions(self, pairs: npt.NDArray[np.int64]) -> list[str | None]:
        """The captions for the `pairs` that `draw` gave."""
        return [self.sets[index].captions[row] for index, row in pairs]

    def captions_to_learn_from(self) -> list[str]:
        """Every caption of the sets: a text tokenizer's training text."""
        return [caption for part in self.sets for caption in part.captions if caption]


def mix(sets: Sequence[FaceSet], weights: Sequence[float] | None = None) -> FaceMix:
    """Several sets as one; without `weights` every face is equally likely. InvalidInputError when sizes
    differ."""
    if not sets or any(len(faces) == 0 for faces in sets):
        raise InvalidInputError("a mix needs at least one set, and none of them empty")
    sizes = sorted({faces.size for faces in sets})
    if len(sizes) > 1:
        raise InvalidInputError(f"the sets have different sizes: {', '.join(map(str, sizes))} px")
    chosen = tuple(float(w) for w in weights) if weights is not None else tuple(float(len(s)) for s in sets)
    if len(chosen) != len(sets) or not all(np.isfinite(w) and w > 0 for w in chosen):
        raise InvalidInputError(f"{len(sets)} sets need as many positive weights, not {chosen}")
    return FaceMix(sets=tuple(sets), weights=chosen)
