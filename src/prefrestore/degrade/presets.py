"""Named ranges of degradation, stated at a reference face size and scaled to the size of the image at hand.

Lengths (blur sigma, kernel, downsampling factor) belong to a size: a blur of 10 px ruins a face of 128 px and
is mild on one of 1024 px. Noise and JPEG quality are properties of the stored pixels and do not scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import numpy as np

from prefrestore.errors import InvalidInputError

Interval = tuple[float, float]


def odd(value: float) -> int:
    """The odd integer nearest to `value`, at least 1 (a kernel needs a middle)."""
    return max(1, 2 * round((value - 1) / 2) + 1)


@dataclass(frozen=True, kw_only=True)
class DegradationRange:
    """What one degradation is drawn from (the chain of GFPGAN, arXiv 2101.04061).

    reference_size: shorter side in px at which the lengths below are stated.
    blur_sigma: standard deviation of the Gaussian blur, px at the reference, (low, high), low > 0.
    kernel_size: side of the blur kernel, px at the reference, odd; the kernel is truncated there.
    anisotropic: probability that the two axes draw their own sigma and the kernel is turned.
    downsample: factor by which both sides shrink, >= 1 at the reference; a scaled factor below 1 becomes 1.
    noise: standard deviation of the Gaussian noise in grey levels of 255.
    jpeg: quality, 1 to 100, both ends included.
    spread: "uniform" draws every number uniformly; "log" draws sigma and factor uniformly in their logarithm,
    so that half of the draws lie below the geometric mean: real photos are more often a little bad than
    terrible.
    old_photo: probability that the picture is also made an old photograph (see `old_photo`).

    Raises InvalidInputError when an interval is empty or outside these bounds.
    """

    name: str
    reference_size: int
    blur_sigma: Interval
    kernel_size: int
    downsample: Interval
    noise: Interval
    jpeg: tuple[int, int]
    anisotropic: float = 0.5
    spread: Literal["uniform", "log"] = "uniform"
    old_photo: float = 0.0

    def __post_init__(self) -> None:
        bounds = {
            "blur_sigma": (*self.blur_sigma, 1e-6, math.inf),
            "downsample": (*self.downsample, 1.0, math.inf),
            "noise": (*self.noise, 0.0, 255.0),
            "jpeg": (*self.jpeg, 1, 100),
            "anisotropic": (self.anisotropic, self.anisotropic, 0.0, 1.0),
            "old_photo": (self.old_photo, self.old_photo, 0.0, 1.0),
            "reference_size": (self.reference_size, self.reference_size, 1, math.inf),
            "kernel_size": (self.kernel_size, self.kernel_size, 1, math.inf),
        }
        for field, (low, high, least, most) in bounds.items():
            if not least <= low <= high <= most or not math.isfinite(high):
                raise InvalidInputError(f"degradation '{self.name}': {field} {low}..{high} is outside {least}..{most}")
        if self.kernel_size % 2 == 0:
            raise InvalidInputError(f"degradation '{self.name}': kernel_size {self.kernel_size} is even")
        if self.spread not in ("uniform", "log"):
            raise InvalidInputError(f"degradation '{self.name}': spread '{self.spread}' is neither uniform nor log")

    def scaled(self, size: int) -> DegradationRange:
        """The same range for an image whose shorter side is `size` px; lengths are multiplied by size /
        reference."""
        if size < 1:
            raise InvalidInputError(f"degradation '{self.name}': an image of {size} px has no pixels")
        scale = size / self.reference_size
        return replace(
            self,
            reference_size=size,
            blur_sigma=(max(1e-6, self.blur_sigma[0] * scale), max(1e-6, self.blur_sigma[1] * scale)),
            kernel_size=odd(self.kernel_size * scale),
            downsample=(max(1.0, self.downsample[0] * scale), max(1.0, self.downsample[1] * scale)),
        )


@dataclass(frozen=True, kw_only=True)
class DegradationMixture:
    """Several ranges, of which one is drawn for each image with the probability given by its weight."""

    name: str
    parts: tuple[tuple[float, DegradationRange], ...]

    def __post_init__(self) -> None:
        weights = [weight for weight, _ in self.parts]
        if not weights or min(weights) < 0 or not math.isclose(sum(weights), 1.0, abs_tol=1e-6):
            raise InvalidInputError(f"degradation mixture '{self.name}': the weights {weights} do not sum to 1")

    def draw(self, rng: np.random.Generator) -> DegradationRange:
        """One of the ranges."""
        index = int(np.searchsorted(np.cumsum([weight for weight, _ in self.parts]), rng.random(), side="right"))
        return self.parts[min(index, len(self.parts) - 1)][1]


PAPER = DegradationRange(
    name="paper",
    reference_size=512,
    blur_sigma=(1, 15),
    kernel_size=41,
    downsample=(1, 30),
    noise=(0, 20),
    jpeg=(30, 90),
)
"""Pref-Restore, arXiv 2601.19506, synthesised at 512 px."""

CLASSIC = DegradationRange(
    name="classic",
    reference_size=512,
    blur_sigma=(0.2, 10),
    kernel_size=41,
    downsample=(1, 8),
    noise=(0, 15),
    jpeg=(60, 100),
)
"""GFPGAN, arXiv 2101.04061, section 4.1."""

BENCH_MILD = DegradationRange(
    name="bench-mild",
    reference_size=256,
    blur_sigma=(0.1, 5),
    kernel_size=21,
    downsample=(1, 4),
    noise=(0, 15),
    jpeg=(60, 100),
)
BENCH_SEVERE = DegradationRange(
    name="bench-severe",
    reference_size=256,
    blur_sigma=(0.5, 7.5),
    kernel_size=21,
    downsample=(2, 15),
    noise=(0, 20),
    jpeg=(30, 80),
)
OLD_PHOTO = DegradationRange(
    name="old-photo",
    reference_size=512,
    blur_sigma=(0.4, 10),
    kernel_size=41,
    downsample=(1, 12),
    noise=(0, 12),
    jpeg=(40, 98),
    spread="log",
    old_photo=1.0,
)
"""Scans of old prints: most are a little soft, some are tiny; the damage and the tone come from
`old_photo`."""

NEARLY_CLEAN = DegradationRange(
    name="nearly-clean",
    reference_size=512,
    blur_sigma=(0.1, 1.0),
    kernel_size=9,
    downsample=(1, 1.5),
    noise=(0, 2),
    jpeg=(88, 100),
    old_photo=0.25,
)
"""Faces that are good already, so that a restorer learns to leave them alone."""

TRAINING = DegradationMixture(
    name="training",
    parts=(
        (0.05, NEARLY_CLEAN),
        (0.12, replace(CLASSIC, spread="log")),
        (0.22, BENCH_MILD),
        (0.22, BENCH_SEVERE),
        (0.14, replace(PAPER, spread="log")),
        (0.25, OLD_PHOTO),
    ),
)

LARGE_FACES = DegradationMixture(
    name="large-faces",
    parts=(
        (0.3, NEARLY_CLEAN),
        (0.25, replace(CLASSIC, spread="log")),
        (0.2, BENCH_MILD),
        (0.1, BENCH_SEVERE),
        (0.15, OLD_PHOTO),
    ),
)
"""Faces that fill 512 px in a photo are seldom as poor as small ones."""

PRESETS: Mapping[str, DegradationRange | DegradationMixture] = MappingProxyType(
    {p.name: p for p in (PAPER, CLASSIC, BENCH_MILD, BENCH_SEVERE, OLD_PHOTO, NEARLY_CLEAN, TRAINING, LARGE_FACES)}
)


def get_preset(name: str) -> DegradationRange | DegradationMixture:
    """The preset called `name`; InvalidInputError names those that exist."""
    if name not in PRESETS:
        raise InvalidInputError(f"no degradation preset '{name}'; there are {', '.join(PRESETS)}")
    return PRESETS[name]
