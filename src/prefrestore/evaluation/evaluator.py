"""All metrics of one restored face against its ground truth, and their means over a set of faces."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrestore.errors import MissingDependencyError, WeightsError
from prefrestore.evaluation.metrics import psnr, ssim
from prefrestore.evaluation.niqe import niqe

METRICS = ("psnr", "ssim", "lpips_alex", "lpips_vgg", "identity", "landmarks", "niqe")
# A detection further than this part of the side from the true points (mean of five) is of something else.
_FAR = 0.1

Picture = NDArray[np.uint8]


@dataclass
class _Truth:
    points: NDArray[np.float64] | None
    vector: NDArray[np.float32] | None
    box: Any | None
    landmarks: NDArray[np.float64] | None
    features: dict[str, Any]


@dataclass
class Evaluator:
    """Measures pictures; what cannot be measured here is left out and its reason is kept in `missing`.

    Args:
        progress: called with one line when a metric turns out to be missing.
        without: metrics that take a model and are not wanted; LPIPS (vgg) takes most of the time.
    """

    progress: Callable[[str], None] = lambda line: None
    missing: dict[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._lpips: dict[str, Any] = {}
        self._try("lpips_alex", lambda: self._lpips.update(alex=_lpips("alex")))
        self._try("lpips_vgg", lambda: self._lpips.update(vgg=_lpips("vgg")))
        self._faces: tuple[Any, Any] | None = None
        self._marks: Any | None = None
        self._try("identity", self._load_faces)
        self._try("landmarks", self._load_marks)
        self._known: tuple[str, _Truth] | None = None

    def _try(self, metric: str, load: Callable[[], None]) -> None:
        if metric in self.without:
            self.missing[metric] = "not asked for"
            return
        try:
            load()
        except (MissingDependencyError, WeightsError) as error:
            self.missing[metric] = str(error)
            self.progress(f"{metric} is left blank: {error}")

    def _load_faces(self) -> None:
        from prefrestore.faces.detect import FaceDetector
        from prefrestore.faces.identity import IdentityEmbedder

        self._faces = (FaceDetector(), IdentityEmbedder())

    def _load_marks(self) -> None:
        from prefrestore.evaluation.landmarks import LandmarkMeter

        self._marks = LandmarkMeter()

    def _truth(self, name: str, picture: Picture) -> _Truth:
        if self._known and self._known[0] == name:
            return self._known[1]
        points = vector = box = landmarks = None
        if self._faces:
            found = self._faces[0].detect(picture)
            points = max(found, key=lambda face: face.box[2] * face.box[3]).points if found else None
            vector = self._faces[1].embed(picture, points)
        if self._marks:
            box = self._marks.box(picture)
            landmarks = self._marks.points(picture, box) if box is not None else None
        features = {net: _lpips_features(model, picture) for net, model in self._lpips.items()}
        # Only the last one is kept: VGG's features of one face are 30 MB. Measure all systems of a face in a row.
        self._known = (name, _Truth(points, vector, box, landmarks, features))
        return self._known[1]

    def measure(self, name: str, truth: Picture, picture: Picture) -> dict[str, float | None]:
        """The metrics of one picture; both are H,W,3 uint8 of one shape; `name` is the ground truth's name.

        A metric that has no value is None. `fallback` is 1 when the identity used the ground truth's points,
        because no face (or another one) was detected in the picture, else 0.
        """
        known = self._truth(name, truth)
        row: dict[str, float | None] = dict.fromkeys((*METRICS, "fallback"))
        row |= {"psnr": psnr(truth, picture), "ssim": ssim(truth, picture), "niqe": niqe(picture)}
        for net, model in self._lpips.items():
            row[f"lpips_{net}"] = float(model.between(known.features[net], _lpips_features(model, picture))[0])
        if self._faces and known.vector is not None:
            from prefrestore.faces.identity import cosine

            points = self._near(picture, known.points)
            row["fallback"] = float(points is None)
            vector = self._faces[1].embed(picture, known.points if points is None else points)
            row["identity"] = cosine(vector, known.vector)
        if self._marks and known.landmarks is not None:
            from prefrestore.evaluation.landmarks import mean_distance

            row["landmarks"] = mean_distance(self._marks.points(picture, known.box), known.landmarks)
        return row

    def _near(self, picture: Picture, expected: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        """Points of the detected face closest to the expected ones, or None if there is none near them."""
        if expected is None or self._faces is None:
            return None
        found = [face.points for face in self._faces[0].detect(picture)]
        distances = [float(np.linalg.norm(points - expected, axis=1).mean()) for points in found]
        if not found or min(distances) > _FAR * picture.shape[0]:
            return None
        return found[int(np.argmin(distances))]


def summarise(rows: list[dict[str, float | None]]) -> dict[str, Any]:
    """Means over the faces that have a value, with the number of faces, of those, and of fallbacks."""
    summary: dict[str, Any] = {"n": len(rows), "fallbacks": int(sum(row["fallback"] or 0 for row in rows))}
    for metric in METRICS:
        values = [value for row in rows if (value := row[metric]) is not None]
        summary[metric] = float(np.mean(values)) if values else None
        summary[f"n_{metric}"] = len(values)
    return summary


def _lpips(net: str) -> Any:
    from prefrestore.evaluation.lpips import LPIPS

    return LPIPS("vgg" if net == "vgg" else "alex")


def _lpips_features(model: Any, picture: Picture) -> Any:
    import torch

    image = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        return model.features(image)
