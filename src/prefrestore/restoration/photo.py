"""A whole photo: find its faces, restore those that need it, and put them back without a trace of the cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prefrestore.errors import InvalidInputError, PrefRestoreError
from prefrestore.faces import align, blend, quality
from prefrestore.faces.detect import Face, FaceDetector
from prefrestore.faces.identity import IdentityEmbedder, cosine
from prefrestore.faces.tone import Tone, tone_of
from prefrestore.pictures.photo import Photo
from prefrestore.pictures.read import as_photo
from prefrestore.restoration.options import MAX_OUTPUT_PIXELS, RestoreOptions, Upscaler
from prefrestore.restoration.record import FaceRecord, PhotoResult, settings_of, write_record
from prefrestore.restoration.render import render, render_aligned
from prefrestore.restoration.rules import FaceFacts, reason_to_skip, warnings_of
from prefrestore.restoration.uncertainty.heatmap import heat_picture, overlay
from prefrestore.restoration.uncertainty.measure import FaceSpread, measure
from prefrestore.restoration.uncertainty.sampling import Samples, draw

if TYPE_CHECKING:
    import torch
    from PIL import Image

__all__ = ["FaceRecord", "PhotoResult", "RestoreOptions", "Upscaler", "restore_photo", "write_record"]


class Answer(NamedTuple):
    """What is shown of one face, S x S x 3 in 0..1, and how far its restorations lie apart."""

    pixels: blend.Float32
    spread: FaceSpread | None


Finish = Callable[[int, blend.Float32 | Samples], Answer]
"""Number of a face, and its restoration S x S x 3 or several -> what is shown."""


def restore_photo(
    picture: Photo | Path | str | Image.Image | NDArray[Any],
    pipeline: Any,
    *,
    options: RestoreOptions | None = None,
    detector: FaceDetector | None = None,
    embedder: IdentityEmbedder | None = None,
) -> PhotoResult:
    """Restore the faces of a photo; everything else of it stays.

    ``picture``: a Photo, a path, a PIL image or an array (see ``as_photo``). ``pipeline``: a
    PrefRestorePipeline, or anything that is called like one and has ``face_size``. Without
    ``options.background``, pixels outside the faces' masks keep their bytes at scale 1. A picture without
    faces comes back as it was, enlarged if asked. Raises ImageReadError for an unreadable file,
    InvalidInputError for options that do not fit the picture.
    """
    options = options or RestoreOptions()
    photo = as_photo(picture)
    name = str(photo.path or "the picture")
    width, height = photo.size
    if width * height * options.scale**2 > MAX_OUTPUT_PIXELS:
        raise InvalidInputError(
            f"{name}: {width} x {height} px times {options.scale} is more than an output may have, "
            f"{MAX_OUTPUT_PIXELS // 10**6} million pixels"
        )
    rgb = photo.rgb8()
    tone = Tone(None) if photo.is_grey else tone_of(rgb)
    size = int(pipeline.face_size)
    detector, embedder = detector or _detector(), embedder or _embedder()
    if options.aligned:
        if width != height:
            raise InvalidInputError(f"{name}: an aligned face is square, this picture is {width} x {height} px")
        faces = [Face((0.0, 0.0, float(width), float(height)), align.ffhq_template(width), 1.0)]
        # Pixel centres of the whole picture onto those of the model's.
        ratio = size / width
        matrices = [np.array([[ratio, 0, ratio / 2 - 0.5], [0, ratio, ratio / 2 - 0.5]])]
        options = replace(options, faces=(0,))
    else:
        faces = detector.detect(rgb)
        template = align.ffhq_template(size)
        matrices = [align.estimate_similarity(face.points, template) for face in faces]
    _check_numbers(options, len(faces), name)

    crops = [_crop(photo.pixels, matrix, size) for matrix in matrices]
    facts = [
        _facts(face, matrix, _uint8(_coded(crop))) for face, matrix, crop in zip(faces, matrices, crops, strict=True)
    ]
    reasons = [
        reason_to_skip(fact, index=index, chosen=options.faces, min_face=options.min_face, max_yaw=options.max_yaw)
        for index, fact in enumerate(facts)
    ]
    wanted = [index for index, reason in enumerate(reasons) if reason is None]

    def coloured(index: int, drawn: blend.Float32) -> blend.Float32:
        if options.reference and options.aligned:
            return drawn
        return blend.colour_match(tone.apply(drawn) if tone else drawn, _coded(crops[index]))

    def finish(index: int, drawn: blend.Float32 | Samples) -> Answer:
        if not isinstance(drawn, Samples):
            return Answer(coloured(index, drawn), None)
        shown = np.stack([coloured(index, image) for image in drawn.images])
        views = None if drawn.views is None else np.stack([coloured(index, image) for image in drawn.views])
        spread = measure(
            Samples(shown, drawn.latents, views),
            seeds=[options.seed + number for number in range(len(shown))],
            points=align.transform_points(matrices[index], faces[index].points),
            choice=options.choice or "medoid",
            detector=detector,
            embedder=embedder,
        )
        return Answer(shown[spread.chosen], spread)

    # The published procedure has its own way from an aligned picture to the model's size.
    inputs = [rgb] if options.reference and options.aligned else crops
    restored = _run(pipeline, inputs, wanted, options, finish)
    records, patches, heated, mask = [], {}, [], blend.face_mask(size)
    for index, (face, matrix, fact) in enumerate(zip(faces, matrices, facts, strict=True)):
        before = _uint8(_coded(crops[index]))
        record = FaceRecord(
            index=index,
            box=face.box,
            points=tuple((float(x), float(y)) for x, y in face.points),
            score=face.score,
            quality=fact.quality,
            yaw=fact.yaw,
            photo_per_model=fact.photo_per_model,
            status="skipped",
            reason=reasons[index],
            before=before,
        )
        if index in restored:
            drawn, spread = restored.pop(index)
            after = _uint8(drawn)
            points = align.transform_points(matrix, face.points)
            similarity = cosine(embedder.embed(before, points), embedder.embed(after, points))
            record = replace(
                record,
                status="restored",
                after=after,
                similarity=similarity,
                warnings=warnings_of(fact, similarity),
                spread=spread,
            )
            placed = align.rescale_output(matrix, options.scale)
            patches[index] = blend.Patch(drawn, placed, mask)
            if spread is not None and spread.map is not None:
                heated.append(blend.Patch(overlay(drawn, spread.map), placed, mask))
        records.append(record)

    one_channel = tone is not None and tone.curve is None
    if options.aligned:
        output = render_aligned(photo, patches[0].pixels, max(width, size) * options.scale)
    else:
        output = render(photo, list(patches.values()), options, one_channel=one_channel)
    heat = None
    if options.uncertainty:
        over = _uint8(heated[0].pixels) if options.aligned else blend.paste(output.rgb8(), heated)
        heat = heat_picture(over, output.size)
    settings = settings_of(pipeline, options)
    return PhotoResult(
        photo=output,
        before=photo,
        faces=tuple(records),
        settings=settings,
        heat=heat,
        patches=patches,
        one_channel=one_channel,
    )


@cache
def _detector() -> FaceDetector:
    return FaceDetector()


@cache
def _embedder() -> IdentityEmbedder:
    return IdentityEmbedder()


def _check_numbers(options: RestoreOptions, found: int, name: str) -> None:
    missing = [index for index in options.faces or () if index >= found]
    if missing:
        raise InvalidInputError(f"{name} has {found} faces, counted from 0: there is no face {missing[0]}")
    prompts = options.prompt
    if prompts is not None and not isinstance(prompts, str) and len(prompts) != found:
        raise InvalidInputError(f"{name} has {found} faces, but {len(prompts)} prompts were given")


def _crop(pixels: NDArray[Any], matrix: NDArray[np.float64], size: int) -> NDArray[Any]:
    """The aligned crop, S x S x 3 in the photo's type."""
    crop = align.crop_face(pixels, matrix, size)
    return np.repeat(crop[..., None], 3, axis=2) if crop.ndim == 2 else crop


def _coded(crop: NDArray[Any]) -> blend.Float32:
    """Integer pixels as coded values in 0..1; as floats all faces of a large group would take a gigabyte."""
    return crop.astype(np.float32) / np.float32(np.iinfo(crop.dtype).max)


def _facts(face: Face, matrix: NDArray[np.float64], crop: NDArray[np.uint8]) -> FaceFacts:
    return FaceFacts(
        width=face.box[2],
        yaw=quality.yaw_degrees(face.points),
        quality=quality.face_quality(crop),
        photo_per_model=1 / align.similarity_scale(matrix),
    )


def _run(
    pipeline: Any,
    crops: Sequence[NDArray[Any]],
    wanted: Sequence[int],
    options: RestoreOptions,
    finish: Finish,
) -> dict[int, Answer]:
    """The pipeline on the wanted crops, in batches: number of the face -> what is shown of it."""
    named = {"num_inference_steps": options.steps}
    named |= {key: getattr(options, key) for key in ("guidance_scale", "fidelity")}
    given: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    given |= {key: True for key in ("reference", "sample_tokens") if getattr(options, key)}
    answers: dict[int, Answer] = {}
    for start in range(0, len(wanted), options.batch_size):
        batch = wanted[start : start + options.batch_size]
        prompt = options.prompt
        if prompt is not None and not isinstance(prompt, str):
            prompt = [prompt[index] for index in batch]
        coded = [_coded(crops[index]) for index in batch]
        faces = [_uint8(face) for face in coded] if options.reference else coded
        drawn: Iterable[blend.Float32 | Samples]
        if options.samples_a_face == 1:
            generators = [face_generator(options.seed, index) for index in batch]
            images = pipeline(faces, prompt=prompt, generator=generators, output_type="np", **given).images
            expected = (len(batch), int(pipeline.face_size), int(pipeline.face_size), 3)
            if np.shape(images) != expected:
                raise PrefRestoreError(f"the pipeline returned faces of shape {np.shape(images)}, not {expected}")
            drawn = (np.asarray(image, np.float32) for image in images)
        else:
            seeds = range(options.seed, options.seed + options.samples_a_face)
            many = [[face_generator(seed, index) for seed in seeds] for index in batch]
            prompts = [prompt] * len(batch) if prompt is None or isinstance(prompt, str) else prompt
            drawn = draw(
                pipeline,
                faces,
                many,
                prompts=prompts,
                views=options.uncertainty,
                batch_size=options.batch_size,
                **given,
            )
        # Reduced to the one that is shown before the next batch: memory does not grow with the number of faces.
        answers |= {index: finish(index, made) for index, made in zip(batch, drawn, strict=True)}
    return answers


def face_generator(seed: int, index: int) -> torch.Generator:
    """The noise source of one face: a function of the photo's seed and the face's number; batches do not matter."""
    import torch

    drawn = int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(drawn >> 1)


def _uint8(coded: blend.Float32) -> NDArray[np.uint8]:
    return np.round(np.clip(coded, 0, 1) * 255).astype(np.uint8)
