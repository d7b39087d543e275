"""What was done to a photo: the result in memory, and the JSON record beside the output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from prefrestore.files.atomic import written_beside
from prefrestore.pictures.photo import Photo

if TYPE_CHECKING:
    from prefrestore.faces.blend import Patch
    from prefrestore.restoration.options import RestoreOptions, Upscaler
    from prefrestore.restoration.rules import Rule
    from prefrestore.restoration.uncertainty.measure import FaceSpread

RECORD_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class FaceRecord:
    """One face of a photo. Coordinates are pixels of the (upright) input."""

    index: int
    """Its number in the photo, from left to right; what ``RestoreOptions.faces`` names."""
    box: tuple[float, float, float, float]
    """x, y, width, height."""
    points: tuple[tuple[float, float], ...]
    """Left eye, right eye, nose tip, left and right mouth corner."""
    score: float
    """The detector's, 0..1; 1 for a picture that was given as an aligned face."""
    quality: float
    """Of the input, 0..1."""
    yaw: float
    """Degrees, 0 frontal to 90 profile."""
    photo_per_model: float
    """Photo pixels for each pixel of the model's crop."""
    status: Literal["restored", "skipped"]
    reason: str | None = None
    """Why it was skipped, or is not restored fully."""
    rule: Rule = "default"
    """Which rule decided."""
    strength: float = 1.0
    """How much of what is shown is the restored face, 0..1; a skipped one has 0."""
    similarity: float | None = None
    """SFace cosine between the face before and after, -1..1."""
    warnings: tuple[str, ...] = ()
    spread: FaceSpread | None = field(default=None, repr=False)
    """How far its restorations lie apart; None for one restoration, or none."""
    before: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    """The aligned crop, S x S x 3; None for a face that was skipped before it was cropped."""
    after: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    """The restored crop at full strength, with the photo's colours; None for a skipped face."""

    def as_dict(self) -> dict[str, Any]:
        """The face as JSON holds it; numbers are rounded to what they mean."""
        return {
            "index": self.index,
            "box": [round(value, 2) for value in self.box],
            "points": [[round(x, 2), round(y, 2)] for x, y in self.points],
            "score": round(self.score, 4),
            "quality": round(self.quality, 4),
            "yaw_degrees": round(self.yaw, 1),
            "photo_pixels_per_model_pixel": round(self.photo_per_model, 4),
            "status": self.status,
            "rule": self.rule,
            "strength": round(self.strength, 4),
            "reason": self.reason,
            "identity_similarity": None if self.similarity is None else round(self.similarity, 4),
            "warnings": list(self.warnings),
            "uncertainty": None if self.spread is None else self.spread.as_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class PhotoResult:
    """A restored photo, its faces, and how it was made."""

    photo: Photo
    """The output, ready for ``write_photo``."""
    before: Photo
    faces: tuple[FaceRecord, ...]
    settings: Mapping[str, Any]
    """Seed, steps, preset, weight hashes and whatever else decides the result; JSON values only."""
    heat: NDArray[np.uint8] | None = field(default=None, repr=False)
    """The output with the faces' uncertainty maps over them, H x W x 3, and a legend below; None if not asked for."""
    patches: Mapping[int, Patch] = field(default_factory=dict, repr=False, compare=False)
    """Number of each restored face -> what was put into the output at full strength, and where: enough to put it in
    again otherwise."""
    one_channel: bool = False
    """Whether they were put in as one channel, so that grey stays exactly grey."""

    @property
    def image(self) -> NDArray[Any]:
        """The output's pixels: H x W or H x W x 3, uint8 or uint16."""
        return self.photo.pixels

    @property
    def restored(self) -> tuple[FaceRecord, ...]:
        """The faces that were restored."""
        return tuple(face for face in self.faces if face.status == "restored")

    @property
    def warnings(self) -> tuple[str, ...]:
        """All warnings, each with its face."""
        return tuple(f"face {face.index}: {text}" for face in self.faces for text in face.warnings)

    def compare(self) -> NDArray[np.uint8]:
        """Before and after in one picture, H x W x 3: side by side, a wide photo one above the other."""
        import cv2

        after = self.photo.rgb8()
        before = self.before.rgb8()
        height, width = after.shape[:2]
        if before.shape != after.shape:
            before = cv2.resize(before, (width, height), interpolation=cv2.INTER_LANCZOS4)
        across = 0 if width > 2 * height else 1
        gap = np.full((8, width, 3) if across == 0 else (height, 8, 3), 255, dtype=np.uint8)
        return np.concatenate([before, gap, after], axis=across)

    def as_record(self) -> dict[str, Any]:
        """The whole record as JSON holds it. It has no date: the same run writes the same bytes."""
        return {
            "record": RECORD_VERSION,
            **self.settings,
            "input": {
                "name": self.before.path.name if self.before.path else None,
                "format": self.before.format,
                "mode": self.before.mode,
                "size": list(self.before.size),
            },
            "output": {"size": list(self.photo.size)},
            "notes": list(self.before.notes),
            "faces": [face.as_dict() for face in self.faces],
        }


def write_record(
    result: PhotoResult, path: str | Path, *, notes: tuple[str, ...] = (), made: Mapping[str, Any] | None = None
) -> None:
    """Write the JSON record whole or not at all.

    Args:
        notes: what ``write_photo`` returned.
        made: further keys: the input's hash (``input_sha256``), what the run was asked for (``run``), the names of what
            it wrote, seen from the record (``files``).

    Raises ImageWriteError, naming the file, if it cannot be written.
    """
    record = {**result.as_record(), **(made or {})}
    record["notes"] += list(notes)
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with written_beside(Path(path)) as part:
        # Bytes of a name that are no text (lone surrogates here) become JSON's own escapes.
        part.write_bytes(text.encode("utf-8", "backslashreplace"))


def settings_of(pipeline: Any, options: RestoreOptions) -> dict[str, Any]:
    """What decides the result, as JSON values."""
    from prefrestore import __version__
    from prefrestore.pipeline.published import procedure

    config = getattr(pipeline, "config", None)

    def chosen(value: float | None, default: str) -> float | None:
        return getattr(config, default, None) if value is None else value

    prompt = options.prompt
    given = options.steps, options.guidance_scale, options.fidelity, None
    steps, guidance_scale, fidelity, solver = procedure.sampling(options.reference, *given)
    return {
        "prefrestore": __version__,
        "preset": getattr(config, "preset", None),
        "weights": dict(getattr(pipeline, "weight_hashes", None) or {}),
        "seed": options.seed,
        "steps": chosen(steps, "num_inference_steps"),
        "fidelity": chosen(fidelity, "fidelity"),
        "guidance_scale": chosen(guidance_scale, "guidance_scale"),
        "solver": chosen(solver, "solver"),
        "dtype": str(getattr(pipeline, "dtype", None)).removeprefix("torch."),
        "prompt": prompt if prompt is None or isinstance(prompt, str) else list(prompt),
        "samples": options.samples_a_face,
        "choice": None if options.samples_a_face == 1 else options.choice or "medoid",
        "scale": options.scale,
        "background": None if options.background is None else _model_of(options.background),
        "aligned": options.aligned,
        "strength": {str(index): value for index, value in options.strength.items()}
        if isinstance(options.strength, Mapping)
        else options.strength,
        "keep_likeness": options.keep_likeness,
        "limits": {name: getattr(options, name) for name in ("min_face", "max_yaw", "min_score", "sharp_enough")},
        "reference": options.reference,
        "sample_tokens": options.sample_tokens,
    }


def _model_of(background: Upscaler) -> dict[str, Any]:
    return {"name": str(getattr(background, "name", "custom")), "sha256": getattr(background, "sha256", None)}
