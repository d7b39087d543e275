"""The Bradley-Terry model of paired comparisons, and how well its probabilities agree with what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn import functional as F

from prefrestore.errors import InvalidInputError


def bradley_terry_loss(chosen: Tensor, rejected: Tensor, preference: Tensor | None = None) -> Tensor:
    """Mean of ``-log sigmoid(s_chosen - s_rejected)`` (Bradley and Terry, Biometrika 39, 1952).

    Args:
        chosen, rejected: scores (P,), higher is better.
        preference: probability (P,) in [0,1] that the first of each pair is the better one; 1 (a choice) when not
            given, 0.5 is a tie. The loss is then the cross-entropy ``-y log p - (1 - y) log(1 - p)``.

    Returns:
        A scalar in nats.
    """
    margin = (chosen - rejected).float()
    if preference is None:
        return F.softplus(-margin).mean()
    return (F.softplus(-margin) + (1 - preference) * margin).mean()


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """How often a judge of pairs is right, and whether it is as sure as it is right.

    n: pairs. accuracy: share ranked as chosen; a draw counts half. expected_calibration_error: mean over pairs of
    |share right - mean confidence| of their bin. edges: B+1 bounds of the confidence, 0.5 to 1. counts, confidence,
    right: pairs, mean confidence and share right of each bin; NaN in empty ones.
    """

    n: int
    accuracy: float
    mean_confidence: float
    expected_calibration_error: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    confidence: tuple[float, ...]
    right: tuple[float, ...]

    def lines(self) -> list[str]:
        """The table of filled bins as text, and the two figures."""
        rows = ["confidence     pairs  predicted  right"]
        for low, high, count, sure, right in zip(
            self.edges, self.edges[1:], self.counts, self.confidence, self.right, strict=False
        ):
            if count:
                rows.append(f"{low:.2f} to {high:.2f} {count:8d} {sure:10.3f} {right:6.3f}")
        rows.append(
            f"{self.n} pairs: accuracy {self.accuracy:.3f}, mean confidence {self.mean_confidence:.3f}, "
            f"expected calibration error {self.expected_calibration_error:.3f}"
        )
        return rows


def reliability(margins: Sequence[float] | npt.NDArray[np.floating], bins: int = 10) -> Reliability:
    """Bin pairs by the model's confidence, as Guo et al. do for classifiers (arXiv 1706.04599, section 2).

    Args:
        margins: score of the chosen one minus score of the rejected one, for each pair.
        bins: equal parts of the confidence's range, 0.5 (a coin's toss) to 1.

    Raises:
        InvalidInputError: no pair, or a margin that is not a number.
    """
    margin = np.asarray(margins, dtype=np.float64)
    if margin.ndim != 1 or len(margin) == 0 or not np.isfinite(margin).all():
        raise InvalidInputError("calibration needs at least one pair, and finite scores")
    sure = 1 / (1 + np.exp(-np.minimum(np.abs(margin), 500)))
    right = np.where(margin == 0, 0.5, margin > 0).astype(np.float64)
    place = np.minimum(((sure - 0.5) * 2 * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    filled = np.maximum(counts, 1)
    confidence = np.bincount(place, sure, bins) / filled
    share = np.bincount(place, right, bins) / filled
    empty = counts == 0
    return Reliability(
        n=len(margin),
        accuracy=float(right.mean()),
        mean_confidence=float(sure.mean()),
        expected_calibration_error=float((counts * np.abs(share - confidence)).sum() / len(margin)),
        edges=tuple(np.linspace(0.5, 1, bins + 1).tolist()),
        counts=tuple(counts.tolist()),
        confidence=tuple(np.where(empty, np.nan, confidence).tolist()),
        right=tuple(np.where(empty, np.nan, share).tolist()),
    )


def wilson_interval(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % score interval of a share seen in n draws (Wilson, JASA 22, 1927)."""
    if n < 1 or not 0 <= share <= 1:
        raise InvalidInputError(f"a share of {share} in {n} draws has no interval")
    middle = share + z * z / (2 * n)
    half = z * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
