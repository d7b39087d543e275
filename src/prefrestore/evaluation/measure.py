"""The one loop that measures: faces in batches, every system on each, one row of values for each of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prefrestore.errors import ImageReadError, InvalidInputError
from prefrestore.evaluation.evaluator import Evaluator, Frame, Observation
from prefrestore.evaluation.folders import MeasuredFace
from prefrestore.evaluation.systems import Picture, Sample, System
from prefrestore.metrics.pixels import sharpness

if TYPE_CHECKING:
    from prefrestore.metrics.inception import InceptionV3

Values = dict[str, "float | None"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One face under one system.

    row: values by column (`prefrestore.evaluation.columns`). pictures: all samples, H,W,3. source: what was read.
    resized: whether the samples were brought to the reference's size. features: Inception's, of the first sample.
    """

    face: MeasuredFace
    system: str
    row: Values
    pictures: tuple[Picture, ...]
    source: Picture
    reference: Picture | None
    resized: bool
    features: NDArray[np.float32] | None


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """A face that cannot be measured, and why."""

    face: MeasuredFace
    reason: str


def measure_faces(
    faces: Sequence[MeasuredFace],
    systems: Mapping[str, System],
    evaluator: Evaluator,
    *,
    batch: int = 8,
    extractor: InceptionV3 | None = None,
    is_done: Callable[[MeasuredFace, str], bool] = lambda face, system: False,
) -> Iterator[Measured | SetAside]:
    """Measure each face under each system; a face with a broken picture is set aside and the rest goes on.

    With several samples a face, a value is the mean over the samples and the measures of spread are added; FID and
    KID take the first sample. Without a reference only naturalness and spread have values.

    Args:
        systems: by title.
        batch: faces restored together.
        is_done: pairs that need not be measured again.
    """
    waiting = [face for face in faces if not all(is_done(face, title) for title in systems)]
    for start in range(0, len(waiting), batch):
        ready: list[_Read] = []
        for face in waiting[start : start + batch]:
            try:
                ready.append(_read(face, with_input=evaluator.named is not None))
            except ImageReadError as error:
                yield SetAside(face=face, reason=str(error))
        if not ready:
            continue
        made = {}
        for title, system in systems.items():
            wanted = [place for place, read in enumerate(ready) if not is_done(read.face, title)]
            if len(wanted) == len(ready):
                made[title] = system([read.face for read in ready], [read.source for read in ready])
            elif wanted:
                restored = system([ready[place].face for place in wanted], [ready[place].source for place in wanted])
                by_place = dict(zip(wanted, restored, strict=True))
                made[title] = [by_place.get(place, []) for place in range(len(ready))]
        for place, read in enumerate(ready):
            for title, restored in made.items():
                if not restored[place]:
                    continue
                try:
                    yield _measured(read, title, restored[place], evaluator, extractor)
                except InvalidInputError as error:
                    yield SetAside(face=read.face, reason=f"{read.face.name}: {error}")
                    break


@dataclass(frozen=True, kw_only=True)
class _Read:
    """A face's pictures: what is measured or restored, its ground truth, and the input of a restoration."""

    face: MeasuredFace
    source: Picture
    reference: Picture | None
    degraded: Picture | None


def _read(face: MeasuredFace, with_input: bool) -> _Read:
    from prefrestore.pictures.read import read_photo

    path = face.restored or face.lq
    if path is None:
        raise ImageReadError(f"{face.name} has no picture")
    source = read_photo(path).rgb8()
    reference = None if face.reference is None else read_photo(face.reference).rgb8()
    degraded = source if face.restored is None else None
    if face.restored is not None and face.lq is not None and with_input:
        degraded = read_photo(face.lq).rgb8()
    return _Read(face=face, source=source, reference=reference, degraded=degraded)


def _measured(
    read: _Read, title: str, samples: list[Sample], evaluator: Evaluator, extractor: InceptionV3 | None
) -> Measured:
    face, reference = read.face, read.reference
    pictures = [sample.picture for sample in samples]
    resized = reference is not None and pictures[0].shape != reference.shape
    if resized and reference is not None:
        pictures = [_resize(picture, reference) for picture in pictures]
    rows: list[Values]
    if reference is not None:
        frame = evaluator.frame(str(face.reference), reference)
        seen = [evaluator.observe(picture, frame) for picture in pictures]
        rows = [evaluator.compare(picture, sight, frame) for picture, sight in zip(pictures, seen, strict=True)]
    else:
        seen = []
        rows = [evaluator.alone(picture) for picture in pictures]
    degraded = None if read.degraded is None else _resize(read.degraded, pictures[0])
    for values, picture in zip(rows, pictures, strict=True):
        values["sharpness"] = sharpness(picture)
        if (likeness := values.get("identity")) is not None:
            values["identity_degrees"] = math.degrees(math.acos(max(-1.0, min(1.0, likeness))))
        if degraded is not None and (alike := evaluator.likeness(picture, degraded)) is not None:
            values["input_likeness"] = alike
    row = {key: _mean([values[key] for values in rows]) for key in rows[0]}
    if len(samples) > 1:
        if reference is None:
            frame = evaluator.frame(f"{title}/{face.name}", pictures[0])
            seen = [evaluator.observe(picture, frame) for picture in pictures]
        row |= _spread(evaluator, frame, pictures, seen, samples)
    return Measured(
        face=face,
        system=title,
        row=row,
        pictures=tuple(pictures),
        source=read.source,
        reference=reference,
        resized=resized,
        features=None if extractor is None else extractor.of(pictures[0]),
    )


def _spread(
    evaluator: Evaluator, frame: Frame, pictures: list[Picture], seen: list[Observation], samples: list[Sample]
) -> Values:
    """The measures of `prefrestore.metrics.spread` for the samples of one face, at the pipeline's own size."""
    from prefrestore.metrics import spread

    row: Values = {"pixel_std": float(spread.pixel_std(np.stack([sample.picture for sample in samples])).mean())}
    if all("alex" in sight.features for sight in seen):
        distances = spread.distance_matrix(seen, lambda a, b: evaluator.perceptual("alex", a, b))
        row["pairwise_lpips"] = spread.pairwise_mean(distances)
    vectors, points = evaluator.together(pictures, seen, frame)
    if vectors:
        row["pairwise_identity"] = spread.pairwise_mean(spread.cosine_distances(vectors))
    if points:
        row["landmark_std"] = spread.landmark_std(points)
    latents = [sample.latent for sample in samples if sample.latent is not None]
    if len(latents) == len(seen):
        row["latent_entropy"] = spread.latent_entropy(np.stack(latents))
    return row


def _resize(picture: Picture, like: Picture) -> Picture:
    height, width = like.shape[:2]
    if picture.shape == like.shape:
        return picture
    if abs(picture.shape[1] / picture.shape[0] - width / height) > 0.01 * width / height:
        raise InvalidInputError(
            f"a picture of {picture.shape[1]}x{picture.shape[0]} cannot be compared with one of {width}x{height}"
        )
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def _mean(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
