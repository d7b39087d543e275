"""All metrics of one restored face against its ground truth, and their means over a set of faces."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrestore.errors import InvalidInputError, MissingDependencyError, WeightsError
from prefrestore.metrics.niqe import niqe
from prefrestore.metrics.pixels import psnr, ssim
from prefrestore.metrics.recognition import degrees, load_recogniser

METRICS = ("psnr", "ssim", "lpips_alex", "lpips_vgg", "dists", "identity", "dlib", "landmarks", "niqe", "musiq")
MODELS = ("lpips_alex", "lpips_vgg", "dists", "identity", "dlib", "landmarks", "musiq")
"""The metrics that take a network, which `Evaluator` may leave out."""
PAIRED = ("lpips_alex", "lpips_vgg", "dists", "identity", "dlib", "landmarks")
"""Those of `MODELS` that compare two pictures, and have nothing to do with one."""
# A detection further than this part of the side from the true points (mean of five) is of something else.
_FAR = 0.1

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Observation:
    """What the networks see in one picture; None where a network is missing or finds nothing.

    vector: identity, 128 numbers. named: the same by the named recogniser. dlib: by dlib's. landmarks: 68 x 2, px at
    512. features: LPIPS' activations by network, and DISTS'.
    fallback: 1 when the vector used the reference's points because no face was detected near them, else 0.
    points: the face's five points by which the vector's crop was aligned, px.
    """

    vector: NDArray[np.float32] | None
    landmarks: NDArray[np.float64] | None
    features: dict[str, Any]
    fallback: float | None = None
    points: NDArray[np.float64] | None = None
    named: NDArray[np.float32] | None = None
    dlib: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Frame:
    """The picture that others are measured against: its face's five points, dlib's box, and what is seen in it.

    usual_box: dlib's, or where it usually lies: its recogniser leaves no face out.
    """

    picture: Picture
    points: NDArray[np.float64] | None
    box: Any | None
    seen: Observation
    usual_box: Any | None = None


@dataclass
class Evaluator:
    """Measures pictures; what cannot be measured here is left out and its reason is kept in `missing`.

    Args:
        progress: called with one line when a metric turns out to be missing.
        without: metrics that take a model and are not wanted; LPIPS (vgg) takes most of the time.
        recogniser: file of the network for the named identity and the likeness to the input, see
            `prefrestore.metrics.recognition`; blank without. WeightsError if it does not fit.
    """

    progress: Callable[[str], None] = lambda line: None
    missing: dict[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    recogniser: Path | None = None

    def __post_init__(self) -> None:
        self.named = load_recogniser(self.recogniser) if self.recogniser is not None else None
        self._dists: Any | None = None
        self._lpips: dict[str, Any] = {}
        self._faces: tuple[Any, Any] | None = None
        self._marks: Any | None = None
        self._dlib: Any | None = None
        self._musiq: Any | None = None
        self._known: tuple[str, Frame] | None = None
        self._try("lpips_alex", lambda: self._lpips.update(alex=_lpips("alex")))
        self._try("lpips_vgg", lambda: self._lpips.update(vgg=_lpips("vgg")))
        self._try("dists", self._load_dists)
        self._try("identity", self._load_faces)
        self._try("dlib", self._load_dlib)
        self._try("landmarks", self._load_marks)
        self._try("musiq", self._load_musiq)

    @property
    def available(self) -> tuple[str, ...]:
        """Those of `MODELS` that are loaded."""
        loaded = {"dists": self._dists, "identity": self._faces, "dlib": self._dlib}
        loaded |= {"landmarks": self._marks, "musiq": self._musiq}
        return tuple(m for m in MODELS if m.removeprefix("lpips_") in self._lpips or loaded.get(m) is not None)

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

    def _load_dists(self) -> None:
        from prefrestore.metrics.dists import DISTS, weights_paths

        self._dists = DISTS(*weights_paths())

    def _load_marks(self) -> None:
        from prefrestore.metrics.landmarks import LandmarkMeter

        self._marks = LandmarkMeter()

    def _load_dlib(self) -> None:
        from prefrestore.metrics.likeness import DlibRecogniser

        self._dlib = DlibRecogniser()

    def _load_musiq(self) -> None:
        from prefrestore.metrics.musiq import MUSIQ, weights_path

        self._musiq = MUSIQ(weights_path())

    def frame(self, name: str, picture: Picture) -> Frame:
        """The frame of a reference picture; the last is kept by its name, so measure a face's systems in a row."""
        # Only the last one: VGG's features of one face are 30 MB.
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
        named = self.named.of(picture, points) if self.named else None
        usual = self._dlib.box(picture) if self._dlib else None
        dlib = self._dlib.vector(picture, usual) if self._dlib else None
        seen = Observation(vector, landmarks, self._features(picture), named=named, dlib=dlib)
        self._known = (name, Frame(picture, points, box, seen, usual))
        return self._known[1]

    def observe(self, picture: Picture, frame: Frame) -> Observation:
        """What is seen in an H,W,3 uint8 picture of the frame's shape, where the frame's own face is."""
        vector = landmarks = fallback = points = None
        if self._faces and frame.seen.vector is not None:
            points = self._near(picture, frame.points)
            fallback = float(points is None)
            points = frame.points if points is None else points
            vector = self._faces[1].embed(picture, points)
        if self._marks and frame.box is not None:
            landmarks = self._marks.points(picture, frame.box)
        named = self.named.of(picture, points) if self.named else None
        dlib = self._dlib.vector(picture, frame.usual_box) if self._dlib else None
        return Observation(vector, landmarks, self._features(picture), fallback, points, named, dlib)

    def together(
        self, pictures: list[Picture], seen: list[Observation], frame: Frame
    ) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float64]]]:
        """Identity vectors and landmarks of several restorations of one face, for how far they lie apart.

        One alignment, by the mean of their points, serves all crops, and the landmarks are `steady_points`: a spread is
        to be the pictures', not that of two detectors whose answers jump by a pixel. Empty where there is no network.
        """
        found = [sight.points for sight in seen if sight.points is not None]
        vectors, landmarks = [], []
        if self._faces and frame.seen.vector is not None:
            shared = np.mean(found, axis=0) if found else frame.points
            vectors = [self._faces[1].embed(picture, shared) for picture in pictures]
        if self._marks and frame.box is not None:
            landmarks = [self._marks.steady_points(picture, frame.box) for picture in pictures]
        return vectors, landmarks

    def compare(self, picture: Picture, seen: Observation, frame: Frame) -> dict[str, float | None]:
        """The metrics of one picture, as in `measure`, from what was seen in it."""
        row: dict[str, float | None] = dict.fromkeys((*METRICS, "fallback"))
        row |= {"psnr": psnr(frame.picture, picture), "ssim": ssim(frame.picture, picture)}
        row |= self.alone(picture)
        for net in self._lpips:
            row[f"lpips_{net}"] = self.perceptual(net, seen, frame.seen)
        if seen.vector is not None and frame.seen.vector is not None:
            from prefrestore.faces.identity import cosine

            row |= {"identity": cosine(seen.vector, frame.seen.vector), "fallback": seen.fallback}
        if self._dists:
            row["dists"] = float(self._dists.between(seen.features["dists"], frame.seen.features["dists"])[0])
        if seen.named is not None and frame.seen.named is not None:
            row["named_degrees"] = degrees(seen.named, frame.seen.named)
        if seen.dlib is not None and frame.seen.dlib is not None:
            row["dlib"] = float(np.linalg.norm(seen.dlib - frame.seen.dlib))
        if seen.landmarks is not None and frame.seen.landmarks is not None:
            from prefrestore.metrics.landmarks import mean_distance

            row["landmarks"] = mean_distance(seen.landmarks, frame.seen.landmarks)
        return row

    def alone(self, picture: Picture) -> dict[str, float | None]:
        """The metrics of one picture that need no other: NIQE and MUSIQ."""
        return {"niqe": naturalness(picture), "musiq": self._musiq.of(picture) if self._musiq else None}

    def likeness(self, picture: Picture, source: Picture) -> float | None:
        """Cosine of a restoration and its input, one size, by the named recogniser; None without one.

        One set of points serves both, as in the challenge that asks for it: those of the restoration, in which a face
        is found more often; a picture without a face is taken for an FFHQ-aligned square.
        """
        if self.named is None:
            return None
        found = self._faces[0].detect(picture) if self._faces else []
        points = max(found, key=lambda face: face.box[2] * face.box[3]).points if found else None
        return float(self.named.of(picture, points) @ self.named.of(source, points))

    def perceptual(self, net: str, first: Observation, second: Observation) -> float:
        """LPIPS of two observed pictures by the network ``alex`` or ``vgg``."""
        return float(self._lpips[net].between(first.features[net], second.features[net])[0])

    def measure(self, name: str, truth: Picture, picture: Picture) -> dict[str, float | None]:
        """The metrics of one picture; both are H,W,3 uint8 of one shape; `name` is the ground truth's name.

        A metric that has no value is None. `fallback` is 1 when the identity used the ground truth's points,
        because no face (or another one) was detected in the picture, else 0.
        """
        frame = self.frame(name, truth)
        return self.compare(picture, self.observe(picture, frame), frame)

    def _features(self, picture: Picture) -> dict[str, Any]:
        features = {net: _lpips_features(model, picture) for net, model in self._lpips.items()}
        return features | ({"dists": self._dists.of(picture)} if self._dists else {})

    def _near(self, picture: Picture, expected: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        """Points of the detected face closest to the expected ones, or None if there is none near them."""
        if expected is None or self._faces is None:
            return None
        found = [face.points for face in self._faces[0].detect(picture)]
        distances = [float(np.linalg.norm(points - expected, axis=1).mean()) for points in found]
        if not found or min(distances) > _FAR * picture.shape[0]:
            return None
        return found[int(np.argmin(distances))]


def naturalness(picture: Picture) -> float | None:
    """NIQE, or None for a picture that is too small to have it."""
    try:
        return niqe(picture)
    except InvalidInputError:
        return None


def summarise(rows: list[dict[str, float | None]]) -> dict[str, Any]:
    """Means over the faces that have a value, with the number of faces, of those, and of fallbacks."""
    summary: dict[str, Any] = {"n": len(rows), "fallbacks": int(sum(row["fallback"] or 0 for row in rows))}
    for metric in METRICS:
        values = [value for row in rows if (value := row[metric]) is not None]
        summary[metric] = float(np.mean(values)) if values else None
        summary[f"n_{metric}"] = len(values)
    return summary


def _lpips(net: str) -> Any:
    from prefrestore.metrics.lpips import LPIPS

    return LPIPS("vgg" if net == "vgg" else "alex")


def _lpips_features(model: Any, picture: Picture) -> Any:
    import torch

    image = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        return model.features(image)
