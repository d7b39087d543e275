"""A whole photo: find its faces, restore those that need it, and put them back without a trace of the cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prefrestore.errors import InvalidInputError
from prefrestore.faces import align, blend
from prefrestore.faces.detect import FaceDetector
from prefrestore.faces.identity import IdentityEmbedder, cosine
from prefrestore.faces.tone import Tone, tone_of
from prefrestore.pictures.photo import Photo
from prefrestore.pictures.read import Source, as_photo
from prefrestore.restoration import likeness
from prefrestore.restoration.draw import Answer, draw_faces, face_generator
from prefrestore.restoration.find import FoundFace, coded, find_faces, uint8
from prefrestore.restoration.options import MAX_OUTPUT_PIXELS, RestoreOptions, Upscaler
from prefrestore.restoration.record import FaceRecord, PhotoResult, settings_of, write_record
from prefrestore.restoration.render import render_aligned_at, render_at
from prefrestore.restoration.rules import Decision, decide, warnings_of
from prefrestore.restoration.strength import mixed
from prefrestore.restoration.uncertainty.heatmap import heat_picture, overlay
from prefrestore.restoration.uncertainty.measure import measure_spread
from prefrestore.restoration.uncertainty.sampling import Samples

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "FaceRecord",
    "PhotoResult",
    "RestoreOptions",
    "Upscaler",
    "face_generator",
    "restore_photo",
    "write_record",
]


def restore_photo(
    picture: Photo | Source | Image.Image | NDArray[Any],
    pipeline: Any,
    *,
    options: RestoreOptions | None = None,
    detector: FaceDetector | None = None,
    embedder: IdentityEmbedder | None = None,
) -> PhotoResult:
    """Restore the faces of a photo; everything else of it stays.

    ``picture``: a Photo, a path, bytes, an open file, a PIL image or an array (see ``as_photo``). ``pipeline``: a
    PrefRestorePipeline, or anything that is called like one and has ``face_size``. Without
    ``options.background``, pixels outside the faces' masks keep their bytes at scale 1. A picture without
    faces comes back as it was, enlarged if asked. Raises ImageReadError for an unreadable file,
    InvalidInputError for options that do not fit the picture.
    """
    options = options or RestoreOptions()
    photo = as_photo(picture, max_pixels=options.max_pixels)
    name = str(photo.path or "the picture")
    width, height = photo.size
    most = max(MAX_OUTPUT_PIXELS, options.max_pixels)
    if width * height * options.scale**2 > most:
        raise InvalidInputError(
            f"{name}: {width} x {height} px times {options.scale} is more than an output may have, "
            f"{most / 10**6:.4g} million pixels (--max-pixels)"
        )
    rgb = photo.rgb8()
    tone = Tone(None) if photo.is_grey else tone_of(rgb)
    size = int(pipeline.face_size)
    detector, embedder = detector or _detector(), embedder or _embedder()
    if options.aligned:
        options = replace(options, faces=(0,))
    found = find_faces(photo, rgb, detector, size, options)
    _check_numbers(options, len(found), name)
    decisions = [_decision(face, index, options) for index, face in enumerate(found)]

    def coloured(index: int, drawn: blend.Float32) -> blend.Float32:
        if options.reference and options.aligned:
            return drawn
        drawn = found[index].exposure.undo(drawn, found[index].coded)
        return blend.colour_match(tone.apply(drawn) if tone else drawn, found[index].coded)

    def finish(index: int, drawn: blend.Float32 | Samples) -> Answer:
        if not isinstance(drawn, Samples):
            return Answer(coloured(index, drawn), None)
        shown = np.stack([coloured(index, image) for image in drawn.images])
        views = None if drawn.views is None else np.stack([coloured(index, image) for image in drawn.views])
        spread = measure_spread(
            Samples(shown, drawn.latents, views),
            seeds=[options.seed + number for number in range(len(shown))],
            points=found[index].points,
            choice=options.choice or "medoid",
            detector=detector,
            embedder=embedder,
        )
        return Answer(shown[spread.chosen], spread)

    def given(index: int) -> NDArray[Any]:
        # The published procedure has its own way from an aligned picture to the model's size.
        if options.reference:
            return rgb if options.aligned else uint8(found[index].shown)
        return found[index].shown

    wanted = [index for index, decision in enumerate(decisions) if decision.strength > 0]
    makers = {index: partial(given, index) for index in wanted}
    restored = draw_faces(pipeline, makers, options, finish)
    records, heated, mask = [], [], blend.face_mask(size)
    patches: dict[int, blend.Patch] = {}
    for index, (face, decision) in enumerate(zip(found, decisions, strict=True)):
        record = _record(index, face, decision)
        if index in restored:
            drawn, spread = restored.pop(index)
            record = _restored(record, face, drawn, options, embedder)
            record = replace(record, spread=spread)
            placed = align.rescale_output(face.matrix, options.scale)
            if record.status == "restored":
                patches[index] = blend.Patch(drawn, placed, mask)
            if spread is not None and spread.map is not None:
                heated.append(blend.Patch(overlay(drawn, spread.map), placed, mask))
        records.append(record)

    one_channel = tone is not None and tone.curve is None
    strengths = {record.index: record.strength for record in records if record.index in patches}
    if options.aligned:
        shown = patches[0].pixels if patches else None
        output = render_aligned_at(photo, shown, strengths.get(0, 0.0), max(width, size) * options.scale)
    else:
        output = render_at(photo, patches, strengths, options, one_channel=one_channel)
    heat = None
    if options.uncertainty:
        over = uint8(heated[0].pixels) if options.aligned and heated else blend.paste(output.rgb8(), heated)
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


def _decision(face: FoundFace, index: int, options: RestoreOptions) -> Decision:
    """What the rules and then the user say of one face's strength."""
    decision = decide(face.facts, index=index, options=options)
    asked = options.strength_of(index)
    if decision.strength == 0 or asked == 1:
        return decision
    reason = f"asked for a strength of {asked:g}"
    if decision.strength < 1:
        return replace(decision, strength=decision.strength * asked, reason=f"{decision.reason}; {reason}")
    return Decision(rule="strength", strength=asked, reason=reason)


def _record(index: int, face: FoundFace, decision: Decision) -> FaceRecord:
    """A face that is left as it is."""
    return FaceRecord(
        index=index,
        box=face.face.box,
        points=tuple((float(x), float(y)) for x, y in face.face.points),
        score=face.face.score,
        quality=face.facts.quality,
        yaw=face.facts.yaw,
        photo_per_model=face.facts.photo_per_model,
        status="skipped",
        rule=decision.rule,
        strength=decision.strength,
        reason=decision.reason,
        before=uint8(face.coded),
    )


def _restored(
    record: FaceRecord, face: FoundFace, drawn: blend.Float32, options: RestoreOptions, embedder: IdentityEmbedder
) -> FaceRecord:
    """The record of a face that was drawn: how strongly it is shown, and how alike it then is."""
    before, full = uint8(face.coded), uint8(drawn)
    first = embedder.embed(uint8(face.shown), face.points)

    def at(share: float) -> NDArray[np.uint8]:
        return mixed(before, full, np.full(full.shape[:2], record.strength * share, np.float32))

    def similarity(shown: NDArray[np.uint8]) -> float:
        # Faded and dark faces are compared as the model sees them: the network was made for no others.
        return cosine(first, embedder.embed(uint8(face.exposure.apply(coded(shown))), face.points))

    clarity, asked = face.facts.clarity, options.keep_likeness and not options.reference
    kept = likeness.keep(clarity, at, similarity) if asked else likeness.Kept(share=1.0, similarity=similarity(at(1.0)))
    warnings = warnings_of(face.facts, kept.similarity)
    if kept.share < 1:
        reason = f"less alike than a face of clarity {clarity:.2f} explains, {likeness.least_likeness(clarity):.2f}"
        said = f"its strength was lowered to {record.strength * kept.share:.2f}, because it would be {reason}"
        record = replace(record, rule="likeness", strength=record.strength * kept.share, reason=reason)
        warnings = (*warnings, said)
    if kept.share == 0:
        return replace(record, warnings=warnings)
    return replace(record, status="restored", after=full, similarity=kept.similarity, warnings=warnings)


@cache
def _detector() -> FaceDetector:
    return FaceDetector()


@cache
def _embedder() -> IdentityEmbedder:
    return IdentityEmbedder()


def _check_numbers(options: RestoreOptions, found: int, name: str) -> None:
    named = [*(options.faces if options.faces is not None and options.faces != "all" else ())]
    named += options.strength if isinstance(options.strength, Mapping) else ()
    missing = [index for index in named if index >= found]
    if missing:
        raise InvalidInputError(f"{name} has {found} faces, counted from 0: there is no face {missing[0]}")
    prompts = options.prompt
    if prompts is not None and not isinstance(prompts, str) and len(prompts) != found:
        raise InvalidInputError(f"{name} has {found} faces, but {len(prompts)} prompts were given")
