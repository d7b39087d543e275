"""Are eyes, nose and mouth where they belong? ``1 / (1 + d / 20)``, d the landmarks' mean distance in px at 512."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.preference.rewards.base import ImageReward, RewardContext, distinct, pictures

if TYPE_CHECKING:
    from prefrestore.metrics.fan import LandmarkNetwork

Picture = NDArray[np.uint8]
DistanceTo = Callable[[Picture], float]

HALF = 20.0  # px at 512; the distance that halves the score
SIDE = 512
# An aligned face of this size is found in one pass; larger pictures are searched in more and only cost time.
_YUNET_SIDE = 256


def agreement(distance: float) -> float:
    """The score of a mean distance in px at 512: 1 for none, 1/2 for 20 px; NaN stays NaN."""
    return 1 / (1 + distance / HALF)


class LandmarkReward(ImageReward):
    """Agreement of the landmarks of the image and of its ground truth; without gradients.

    Args:
        points: 5 (YuNet's, found in both pictures; the base install does it), 68 (dlib's, in the box that its detector
            finds in the ground truth, as `metrics.landmarks` measures; the extra ``eval``) or 98 (the heat maps of
            `metrics.fan` over the whole picture, as in Pref-Restore's run). The number is in the name: landmarks5,
            landmarks68, landmarks98.
        weights: the file of the 98 points.

    A sample whose ground truth, or with 5 points whose image, shows no face has no score. 98 points are found in
    anything, so every finite image has one.

    Raises:
        InvalidInputError: another number of points, or weights for points that have their own.
        MissingDependencyError: the packages of the chosen points are missing.
        WeightsError: the weights of the 98 points are not named, or do not fit.
    """

    needs_reference = True

    def __init__(self, points: Literal[5, 68, 98] = 5, *, weights: str | Path | None = None) -> None:
        if points not in (5, 68, 98):
            raise InvalidInputError(f"the reward landmarks knows 5, 68 or 98 points, not {points}")
        if weights is not None and points != 98:
            raise InvalidInputError(f"the reward landmarks takes weights for 98 points, not for {points}")
        self.name = f"landmarks{points}"
        self.network: LandmarkNetwork | None = None
        if points == 98:
            if weights is None:
                raise WeightsError("the reward landmarks needs the file of its 98 points with its option 'weights'")
            from prefrestore.metrics.fan import load_landmark_network

            self.network = load_landmark_network(weights)
            return
        self._side = _YUNET_SIDE if points == 5 else SIDE
        self._meter: Callable[[Picture], DistanceTo]
        self._meter = _yunet() if points == 5 else _dlib()

    def score(self, images: Tensor, context: RewardContext) -> Tensor:
        """See `ImageReward.score`."""
        assert context.reference is not None
        rows, place = distinct(context.reference)
        if self.network is not None:
            network = self.network.to(images.device)
            apart = (network.points(images) - network.points(rows)[place]).norm(dim=2).mean(1)
            return 1 / (1 + apart / HALF)
        distance_to = [self._meter(truth) for truth in pictures(rows, self._side)]
        found = zip(place.tolist(), pictures(images, self._side), strict=True)
        return images.new_tensor([agreement(distance_to[row](picture)) for row, picture in found])


def _yunet() -> Callable[[Picture], DistanceTo]:
    """Ground truth -> (picture -> distance of the five points, of the face next to the ground truth's largest)."""
    from prefrestore.faces.detect import FaceDetector
    from prefrestore.metrics.landmarks import mean_distance

    detector = FaceDetector()

    def measure(truth: Picture) -> DistanceTo:
        faces = detector.detect(truth)
        known = max(faces, key=lambda face: face.box[2] * face.box[3]).points if faces else None

        def distance(picture: Picture) -> float:
            if known is None:
                return math.nan
            near = (mean_distance(face.points, known) for face in detector.detect(picture))
            return min(near, default=math.nan) * SIDE / _YUNET_SIDE

        return distance

    return measure


def _dlib() -> Callable[[Picture], DistanceTo]:
    """Ground truth -> (picture -> distance of the 68 points)."""
    from prefrestore.metrics.landmarks import LandmarkMeter, mean_distance

    meter = LandmarkMeter()

    def measure(truth: Picture) -> DistanceTo:
        box = meter.box(truth)
        known = None if box is None else meter.points(truth, box)
        return lambda picture: math.nan if known is None else mean_distance(meter.points(picture, box), known)

    return measure
