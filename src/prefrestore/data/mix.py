"""Batches drawn from several sets of faces; what is drawn depends on (seed, step) only, so training can
resume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prefrestore.data.faces import FaceSet
from prefrestore.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceMix:
    """sets: faces of one size. weights: how often each set is drawn from, any positive scale. shares: for each set, how
    often each of its faces is drawn, adding up to 1, or None for all alike; empty means None for all."""

    sets: tuple[FaceSet, ...]
    weights: tuple[float, ...]
    shares: tuple[npt.NDArray[np.float64] | None, ...] = ()

    def draw(self, count: int, *, seed: int, step: int) -> npt.NDArray[np.int64]:
        """count,2 pairs (set, row), drawn with replacement from the generator of (seed, step)."""
        rng = np.random.default_rng([seed, step])
        shares = np.asarray(self.weights) / sum(self.weights)
        chosen = rng.choice(len(self.sets), size=count, p=shares)
        lengths = np.array([len(faces) for faces in self.sets])
        places = rng.random(count)
        rows = np.floor(places * lengths[chosen]).astype(np.int64)
        for index, share in enumerate(self.shares):
            if share is not None:
                mine = chosen == index
                found = np.searchsorted(np.cumsum(share), places[mine], side="right")
                rows[mine] = np.minimum(found, len(share) - 1)
        return np.stack([chosen, rows], axis=1)

    def face_shares(self) -> npt.NDArray[np.float64] | None:
        """How often each face of all sets, in a row, is drawn (N,), adding up to 1; None where all are drawn alike."""
        parts = []
        for index, faces in enumerate(self.sets):
            share = self.shares[index] if self.shares else None
            within = np.full(len(faces), 1 / len(faces)) if share is None else share
            parts.append(self.weights[index] / sum(self.weights) * within)
        shares = np.concatenate(parts)
        return None if np.allclose(shares, shares[0]) else shares

    def images(self, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """uint8 count,H,W,3 for the `pairs` that `draw` gave."""
        return np.stack([self.sets[index].images[row] for index, row in pairs])

    def captions(self, pairs: npt.NDArray[np.int64], rng: np.random.Generator | None = None) -> list[str | None]:
        """A sentence for each of the `pairs` that `draw` gave: the caption, or with `rng` it or one of the phrases."""
        told = []
        for index, row in pairs:
            faces = self.sets[index]
            ways = [text for text in (faces.captions[row], *(faces.phrases[row] if faces.phrases else ())) if text]
            if rng is not None and len(ways) > 1:
                ways = [ways[int(rng.integers(len(ways)))]]
            told.append(ways[0] if ways else None)
        return told

    def captions_to_learn_from(self) -> list[str]:
        """Every caption of the sets: a text tokenizer's training text."""
        captions = [caption for part in self.sets for caption in part.captions if caption]
        return captions + [text for part in self.sets for phrases in part.phrases for text in phrases]


REAL_SHARE = 0.8
"""How many of the faces drawn from `photographs_first` are photographs of real people."""


def photographs_first(sets: Sequence[FaceSet]) -> FaceMix:
    """Sets with real faces and drawn ones, four real to one drawn; a source counts by the square root of its faces.

    So the portraits of officials, which are most and most alike, do not prevail; nor does the generator's look. Where
    all faces are of one kind, that is all there is.
    """
    weights = []
    for faces in sets:
        synthetic = np.array(faces.synthetic or [faces.split == "synthetic"] * len(faces))
        counts = Counter(source for source, drawn in zip(faces.sources, synthetic, strict=True) if not drawn)
        balanced = [1.0 if drawn else counts[s] ** -0.5 for s, drawn in zip(faces.sources, synthetic, strict=True)]
        weights.append((np.array(balanced), synthetic))
    for drawn, share in ((False, REAL_SHARE), (True, 1 - REAL_SHARE)):
        sums = [w[synthetic == drawn].sum() for w, synthetic in weights]
        having = sum(total > 0 for total in sums)
        # Drawn faces of a set count as much as those of another, however many there are; real ones by their weights.
        for (w, synthetic), total in zip(weights, sums, strict=True):
            if total > 0:
                w[synthetic == drawn] *= share / (total * having if drawn else sum(sums))
    return mix(sets, [w.sum() for w, _ in weights], [w / w.sum() for w, _ in weights])


def mix(
    sets: Sequence[FaceSet],
    weights: Sequence[float] | None = None,
    shares: Sequence[npt.NDArray[np.float64] | None] = (),
) -> FaceMix:
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
    return FaceMix(sets=tuple(sets), weights=chosen, shares=tuple(shares))
