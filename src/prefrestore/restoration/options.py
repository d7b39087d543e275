"""What a user may choose about the restoration of a photo."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, get_args

from numpy.typing import NDArray

from prefrestore.errors import InvalidInputError
from prefrestore.pictures.formats import MAX_PIXELS
from prefrestore.restoration.told import TOLD

# Of the output; 1.5 GB as 8-bit RGB. It lets a 31-megapixel photo grow by 4.
MAX_OUTPUT_PIXELS = 500_000_000
# Input quality (faces/quality.py) at and above which a face is left alone: `benchmarks/photos.py sharpness` counts
# which faces that are.
SHARP = 0.56
# Of each face, for an uncertainty map when no number is given.
UNCERTAINTY_SAMPLES = 4

_WHOLE = ("scale", "steps", "seed", "batch_size", "samples", "max_pixels")

Choice = Literal["first", "medoid", "best"]
"""Which of several restorations is shown; see `prefrestore.restoration.uncertainty.measure.measure_spread`."""

Upscaler = Callable[[NDArray[Any], int], NDArray[Any]]
"""H x W x 3 (uint8 or uint16) and a factor -> the same type, H * factor x W * factor x 3."""


@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """How a photo is restored; None leaves a choice to the pipeline. Raises InvalidInputError for a bad
    value.
    """

    faces: Sequence[int] | Literal["all"] | None = None
    """Numbers of the faces to restore, from left to right, or all of them, whatever the rules say; None: by the rules.
    """
    strength: float | Mapping[int, float] = 1.0
    """0 (the face as it was) to 1 (fully restored), for all faces or by number; faces that are not named stay at 1."""
    prompt: str | Sequence[str | None] | None = None
    """What the photo shows, for all faces, or one text a detected face."""
    steps: int | None = None
    seed: int = 0
    """0 or more. A face's noise depends on the seed and its number only."""
    fidelity: float | None = None
    """0..1."""
    guidance_scale: float | None = None
    scale: int = 1
    """1, 2 or 4: the output is so much larger, faces are rendered at that size from the model's own pixels.
    """
    background: Upscaler | None = None
    """What draws the surroundings; None: the input's own pixels, enlarged by Lanczos."""
    aligned: bool = False
    """The picture is one aligned square face. The output is never smaller than the model's."""
    batch_size: int = 8
    min_face: float = 16.0
    """px; narrower faces are skipped."""
    max_yaw: float = 55.0
    """Degrees; faces that are turned further are skipped."""
    min_score: float = 0.0
    """0..1; faces of which the detector is less sure are skipped. 0: whatever the detector takes for a face."""
    sharp_enough: float = SHARP
    """0..1: the quality at and above which a face is left alone."""
    keep_likeness: bool = True
    """Lower the strength of a face that has become less alike than its degradation explains."""
    samples: int | None = None
    """Restorations of each face, from the seeds ``seed``, ``seed + 1``, ...; None: 1, or 4 for ``uncertainty``."""
    uncertainty: bool = False
    """Also draw where the restorations of a face differ (``PhotoResult.heat``)."""
    choice: Choice | None = None
    """None: the medoid."""
    reference: bool = False
    """The published inference procedure; an aligned face is then shown as the model draws it."""
    sample_tokens: bool = False
    """Draw the tokens, seeded by ``seed``, in place of the likeliest ones."""

    max_pixels: int = MAX_PIXELS
    """Larger pictures are refused before they are unpacked; more than the default for large scans."""

    @property
    def samples_a_face(self) -> int:
        """How many restorations of each face are made."""
        return self.samples or (UNCERTAINTY_SAMPLES if self.uncertainty else 1)

    def strength_of(self, index: int) -> float:
        """What was asked for one face, 0..1."""
        return self.strength.get(index, 1.0) if isinstance(self.strength, Mapping) else self.strength

    def __post_init__(self) -> None:
        for name in ("fidelity", "guidance_scale", "min_face", "max_yaw"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InvalidInputError(f"{name} is a finite number, not {value}")
        by_face = self.strength if isinstance(self.strength, Mapping) else {0: self.strength}
        for index, value in by_face.items():
            if not 0 <= value <= 1:
                raise InvalidInputError(f"a face's strength lies between 0 and 1, not {value}")
            if index < 0:
                raise InvalidInputError(f"strength: faces are counted from 0, got {index}")
        for name in _WHOLE:
            value = getattr(self, name)
            # 2.0 == 2, but OpenCV takes no size of floats.
            if value is not None and (not isinstance(value, Integral) or isinstance(value, bool)):
                raise InvalidInputError(f"{name} is a whole number, not {value!r}")
        if self.scale not in (1, 2, 4):
            raise InvalidInputError(f"scale is 1, 2 or 4, not {self.scale}")
        if self.max_pixels < 1:
            raise InvalidInputError(f"max_pixels is 1 or more, not {self.max_pixels}")
        if self.batch_size < 1:
            raise InvalidInputError(f"batch_size is 1 or more, not {self.batch_size}")
        for name in ("seed", "steps", "samples", "fidelity", "min_face", "max_yaw", "min_score", "sharp_enough"):
            value = getattr(self, name)
            if value is not None and not TOLD[name].holds(value):
                raise InvalidInputError(f"{name} {TOLD[name].limits}, not {value}")
        if isinstance(self.faces, str):
            if self.faces != "all":
                raise InvalidInputError(f"faces are numbers or 'all', not '{self.faces}'")
        elif self.faces is not None and any(index < 0 for index in self.faces):
            raise InvalidInputError(f"faces are counted from 0, got {list(self.faces)}")
        if self.choice is not None and self.choice not in get_args(Choice):
            raise InvalidInputError(f"choice is one of {', '.join(get_args(Choice))}, not '{self.choice}'")
        if self.samples_a_face > 1 and (self.reference or self.sample_tokens):
            raise InvalidInputError("reference and sample_tokens make one restoration of each face, not several")
        if self.samples_a_face == 1 and (self.uncertainty or self.choice is not None):
            wanted = "uncertainty" if self.uncertainty else "choice"
            raise InvalidInputError(f"{wanted} needs 2 samples or more of each face")
