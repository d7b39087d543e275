"""A second opinion on identity: dlib's face recognition network, which no other part of the package learns from."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from prefrestore.preference.rewards.base import ImageReward, RewardContext, distinct, pictures

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
        from prefrestore.metrics.likeness import DlibRecogniser

        self._recogniser = DlibRecogniser()

    def score(self, images: Tensor, context: RewardContext) -> Tensor:
        """See `ImageReward.score`."""
        assert context.reference is not None
        rows, place = distinct(context.reference)
        truths = pictures(rows, _SIDE)
        vector_of, boxes = self._recogniser.vector, [self._recogniser.found_box(truth) for truth in truths]
        known = [None if box is None else vector_of(truth, box) for truth, box in zip(truths, boxes, strict=True)]
        scores = []
        for row, picture in zip(place.tolist(), pictures(images, _SIDE), strict=True):
            vector = known[row]
            if vector is None:
                scores.append(math.nan)
            else:
                scores.append(1 - float(np.linalg.norm(vector_of(picture, boxes[row]) - vector)))
        return images.new_tensor(scores)
