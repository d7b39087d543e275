"""Faded, dim and dark faces, brought to the contrast that a face model knows, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prefrestore.errors import InvalidInputError
from prefrestore.faces.blend import LUMA, Float32, face_mask

# The range of a face's luma, from the 2nd to the 98th percentile inside the mask, in 0..1. Measured: sharp faces
# 0.43 to 0.87, severely degraded ones 0.34 and more, scans of old portraits 0.32 and more. So none of those changes.
FLAT = 0.31  # a face begins to be stretched below this ...
FLATTER = 0.25  # ... and is stretched fully below this
# What it is stretched to: the median of severely degraded faces, and the middle of their range.
USUAL_RANGE, USUAL_MIDDLE = 0.60, 0.48
MOST = 16.0  # times; what is flatter still shows the steps of 8 bits rather than a face


@dataclass(frozen=True)
class Exposure:
    """A straight line through the coded values of a face: ``gain`` times the value, plus ``offset``."""

    gain: float = 1.0
    offset: float = 0.0

    @property
    def changes(self) -> bool:
        """Whether it is more than the values as they are."""
        return self.gain != 1 or self.offset != 0

    def apply(self, coded: Float32) -> Float32:
        """The face as the model is shown it; the array itself where nothing changes."""
        if not self.changes:
            return coded
        return np.clip(coded * np.float32(self.gain) + np.float32(self.offset), 0, 1).astype(np.float32)

    def undo(self, drawn: Float32, coded: Float32) -> Float32:
        """What the model drew of ``apply(coded)``, as faded or as dark as ``coded`` is.

        What was too light or too dark to be shown to the model comes back from ``coded``, so a model that changes
        nothing gives it back. The array itself where nothing changes.
        """
        if not self.changes:
            return drawn
        unseen = coded - (self.apply(coded) - np.float32(self.offset)) / np.float32(self.gain)
        back = (drawn - np.float32(self.offset)) / np.float32(self.gain)
        return np.clip(back + unseen, 0, 1).astype(np.float32)


def luma_range(coded: Float32) -> tuple[float, float]:
    """The 2nd and the 98th percentile of luma inside the face mask of an aligned crop, S x S x 3 in 0..1."""
    if coded.ndim != 3 or coded.shape[0] != coded.shape[1] or coded.shape[2] != 3:
        raise InvalidInputError(f"an aligned face is S x S x 3, not {coded.shape}")
    luma = (coded @ LUMA)[face_mask(coded.shape[0]) > 0.5]
    low, high = np.percentile(luma, [2, 98])
    return float(low), float(high)


def exposure_of(coded: Float32) -> Exposure:
    """How an aligned crop (S x S x 3 in 0..1) is stretched for the model; not at all unless its contrast is low.

    Between ``FLAT`` and ``FLATTER`` the stretch sets in by degrees, so that frames of one scene do not jump.
    """
    low, high = luma_range(coded)
    share = float(np.clip((FLAT - (high - low)) / (FLAT - FLATTER), 0, 1))
    if share == 0:
        return Exposure()
    gain = min(USUAL_RANGE / max(high - low, 1e-6), MOST) ** share
    middle = (low + high) / 2
    return Exposure(gain, middle + share * (USUAL_MIDDLE - middle) - gain * middle)
