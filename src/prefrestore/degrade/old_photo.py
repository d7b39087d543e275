"""What makes a photograph old: its tone (kept by the restored picture) and its damage (to be removed).

Tone is one smooth curve and a tint, applied to the degraded picture and to its target alike: a restorer must
not paint a grey photograph or re-tone a brown one. Damage (grain, paper, stains, dust, scratches, halftone)
is applied only to the degraded picture. Modelled by eye on scans of old official portraits: grey and faded
prints, brown cabinet cards, yellow-green newsprint with dots, greenish slides, over-sharpened photocopies.
Tone works on uint8 and damage on float32 in [0,255], both H,W,3 RGB. Damage never brings in a colour: it
moves the three channels alike, or towards the tone's own paper or ink, so grey stays grey.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
FloatImage = npt.NDArray[np.float32]
Colour = tuple[float, float, float]

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, the weights JPEG uses


@dataclass(frozen=True, kw_only=True)
class Toning:
    """saturation: 0 keeps only luminance, 1 keeps the colours. gamma: exponent on [0,1]. contrast: slope of a
    smooth S-curve about the middle, 1 is none. ink, paper: the colours (0..255) that black and white
    become."""

    saturation: float
    gamma: float
    contrast: float
    ink: Colour
    paper: Colour

    @property
    def monochrome(self) -> bool:
        """True when every pixel lies on the line from ink to paper."""
        return self.saturation == 0


@dataclass(frozen=True, kw_only=True)
class OldPhoto:
    """One old photograph: tone, and the strength of each damage (0: none), lengths in px of the image.

    scale: px of this image to one px of a face of 256 px. grain: standard deviation in grey levels, of specks
    `grain_size` px wide. texture: amplitude of the paper's relief, grey levels. stain: largest darkening or
    lightening by blotches, as a share. dust, scratches: how many.
    screen: none, dots or lines of a printing press, `pitch` px apart at `screen_angle` radians, mixed in by
    `screen_strength`. sharpen: how much of a scanner's unsharp mask.
    """

    tone: Toning
    scale: float
    grain: float
    grain_size: float
    texture: float
    stain: float
    dust: int
    scratches: int
    screen: Literal["none", "dots", "lines"]
    pitch: float
    screen_angle: float
    screen_strength: float
    sharpen: float


def draw_tone(rng: np.random.Generator) -> Toning:
    """Grey (45 %), sepia (25 %), another tint such as green newsprint (10 %), or shifted colour (20 %)."""
    kind = rng.random()
    gamma = float(np.exp(rng.normal(0, 0.18)))
    contrast = float(rng.uniform(1.0, 2.2)) if rng.random() < 0.35 else 1.0
    faded = rng.random() < 0.6
    black = float(rng.uniform(0, 70)) if faded else float(rng.uniform(0, 12))
    white = float(rng.uniform(185, 255)) if faded else float(rng.uniform(240, 255))
    if kind < 0.45:
        return Toning(saturation=0.0, gamma=gamma, contrast=contrast, ink=(black,) * 3, paper=(white,) * 3)
    if kind < 0.80:
        # The warm-cool axis (red against blue) carries sepia; the green-magenta axis newsprint, slides and
        # cyanotypes.
        sepia = kind < 0.70
        warm = float(rng.uniform(6, 38)) if sepia else float(rng.uniform(-30, 30))
        green = float(rng.uniform(-4, 6)) if sepia else float(rng.uniform(-3, 14))
        paper = _tint(white - 6, warm, green)
        ink = _tint(black + 4, warm * float(rng.uniform(0.2, 0.8)), green * float(rng.uniform(0, 1)))
        return Toning(saturation=0.0, gamma=gamma, contrast=contrast, ink=ink, paper=paper)
    saturation = float(rng.uniform(0.25, 1.0))
    ink = _tint(black, float(rng.normal(0, 10)), float(rng.normal(0, 4)))
    paper = _tint(white, float(rng.normal(6, 12)), float(rng.normal(0, 5)))
    return Toning(saturation=max(0.25, saturation), gamma=gamma, contrast=contrast, ink=ink, paper=paper)


def draw_old_photo(size: int, rng: np.random.Generator) -> OldPhoto:
    """Draws tone and damage for an image whose shorter side is `size` px; one or two damages are usual."""
    scale = size / 256
    screen: Literal["none", "dots", "lines"] = "none"
    if rng.random() < 0.22:
        screen = "dots" if rng.random() < 0.75 else "lines"
    return OldPhoto(
        tone=draw_tone(rng),
        scale=scale,
        grain=float(np.exp(rng.uniform(np.log(2), np.log(20)))) if rng.random() < 0.55 else 0.0,
        grain_size=float(rng.uniform(0.3, 1.3)) * scale,
        texture=float(rng.uniform(2, 12)) if rng.random() < 0.25 else 0.0,
        stain=float(rng.uniform(0.05, 0.3)) if rng.random() < 0.2 else 0.0,
        dust=int(rng.poisson(12)) if rng.random() < 0.3 else 0,
        scratches=int(rng.integers(1, 7)) if rng.random() < 0.25 else 0,
        screen=screen,
        pitch=float(rng.uniform(2.0, 5.5)) * scale,
        screen_angle=float(rng.choice([0.0, np.pi / 4, rng.uniform(0, np.pi)])),
        screen_strength=float(rng.uniform(0.15, 0.65)),
        sharpen=float(rng.uniform(0.3, 1.8)) if rng.random() < 0.3 else 0.0,
    )


def apply_tone(image: Image, tone: Toning) -> Image:
    """uint8 `image` in the tone of the old print; luminance keeps its order, black becomes ink and white
    paper."""
    luminance = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    unit = (np.arange(256, dtype=np.float32) / 255) ** tone.gamma
    if tone.contrast != 1:
        # A hyperbolic tangent through (0,0), (1/2,1/2) and (1,1); its slope in the middle is about
        # `contrast`.
        bend = 2 * (tone.contrast - 1) + 1e-3
        unit = 0.5 + 0.5 * np.tanh(bend * (unit - 0.5)) / np.tanh(bend / 2)
    ink, paper = _array(tone.ink), _array(tone.paper)
    table = np.rint(np.clip(ink + (paper - ink) * unit[:, None], 0, 255)).astype(np.uint8)
    mixed = np.repeat(luminance[..., None], 3, axis=2)
    if not tone.monochrome:
        mixed = np.asarray(cv2.addWeighted(image, tone.saturation, mixed, 1 - tone.saturation, 0))
    return np.asarray(cv2.LUT(mixed, table[None])).astype(np.uint8, copy=False)


def apply_damage(image: FloatImage, old: OldPhoto, rng: np.random.Generator) -> FloatImage:
    """Grain, texture, stains, dust, scratches, screen and sharpening, in the order in which they befall a
    print."""
    height, width = image.shape[:2]
    ink, paper = _array(old.tone.ink), _array(old.tone.paper)
    if old.grain:
        image = _shift(image, old.grain * _smooth_noise(height, width, old.grain_size, rng))
    if old.texture:
        image = _shift(image, old.texture * _smooth_noise(height, width, 1.5 * old.scale, rng, stretch=3.0))
    if old.stain:
        image = _stain(image, old.stain, paper, ink, rng)
    if old.dust:
        image = _cover(image, _dust_mask(height, width, old, rng), paper if rng.random() < 0.7 else ink)
    if old.scratches:
        image = _cover(image, _scratch_mask(height, width, old, rng), paper if rng.random() < 0.7 else ink)
    if old.screen != "none":
        image = halftone(image, old, rng)
    if old.sharpen:
        soft = cv2.GaussianBlur(image, (0, 0), max(0.3, 1.2 * old.scale), borderType=cv2.BORDER_REFLECT_101)
        image = _float(image + old.sharpen * (image - soft))
    return _float(np.clip(image, 0, 255))


def halftone(image: FloatImage, old: OldPhoto, rng: np.random.Generator) -> FloatImage:
    """Prints `image` through a screen: where the picture is lighter than the screen there is paper, else ink.

    The threshold has soft edges (ink spreads), and the result is mixed with the picture by `screen_strength`,
    because a scan at middling resolution lies between the dots and their mean.
    """
    height, width = image.shape[:2]
    ink, paper = _array(old.tone.ink), _array(old.tone.paper)
    span = float((paper - ink) @ LUMA)
    if span < 1:
        return image
    level = np.clip(((image - ink) @ LUMA) / span, 0, 1)
    pitch = max(2.0, old.pitch)
    x, y = np.arange(width, dtype=np.float32)[None, :], np.arange(height, dtype=np.float32)[:, None]
    cos, sin = np.cos(old.screen_angle), np.sin(old.screen_angle)
    phase = rng.uniform(0, 2 * np.pi, 2)
    u = np.cos((2 * np.pi / pitch) * (x * cos + y * sin) + phase[0])
    if old.screen == "dots":
        u = (u + np.cos((2 * np.pi / pitch) * (y * cos - x * sin) + phase[1])) / 2
    softness = 0.25
    printed = np.clip((level - (0.5 + 0.5 * u) * (1 - softness)) / softness, 0, 1)[..., None]
    screened = ink + (paper - ink) * printed
    return _float(image + old.screen_strength * (screened - image))


def _tint(level: float, warm: float, green: float) -> Colour:
    low, high = 0.0, 255.0
    return (
        float(np.clip(level + 0.5 * warm - green / 3, low, high)),
        float(np.clip(level + green, low, high)),
        float(np.clip(level - warm - green / 3, low, high)),
    )


def _array(colour: Colour) -> FloatImage:
    return np.asarray(colour, dtype=np.float32)


def _float(image: npt.NDArray[np.floating]) -> FloatImage:
    return image.astype(np.float32, copy=False)


def _shift(image: FloatImage, amount: FloatImage) -> FloatImage:
    """Moves all channels by the same number of grey levels."""
    return _float(np.clip(image + amount[..., None], 0, 255))


def _smooth_noise(height: int, width: int, sigma: float, rng: np.random.Generator, stretch: float = 1.0) -> FloatImage:
    """Unit-variance noise with blobs of `sigma` px (`stretch` times longer sideways)."""
    noise = rng.standard_normal((height, width), dtype=np.float32)
    if sigma > 0.3:
        noise = cv2.GaussianBlur(noise, (0, 0), sigmaX=sigma * stretch, sigmaY=sigma, borderType=cv2.BORDER_REFLECT_101)
        noise = noise / max(1e-6, float(noise.std()))
    return _float(noise)


def _stain(
    image: FloatImage, strength: float, paper: FloatImage, ink: FloatImage, rng: np.random.Generator
) -> FloatImage:
    """Broad blotches that pull towards the paper (faded spots) or the ink (water marks, dark corners)."""
    height, width = image.shape[:2]
    cells = int(rng.integers(3, 7))
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    field = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    amount = _float(np.clip(field * (strength / 2), -strength, strength))[..., None]
    return _float(image + np.maximum(amount, 0) * (paper - image) + np.maximum(-amount, 0) * (ink - image))


def _cover(image: FloatImage, mask: FloatImage, colour: FloatImage) -> FloatImage:
    return _float(image + mask[..., None] * (colour - image))


def _soften(mask: npt.NDArray[np.uint8], sigma: float) -> FloatImage:
    # One channel of float32 in [0,1]; a hair line is thinner than a pixel, so its edge is soft.
    return _float(
        cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), max(0.3, sigma), borderType=cv2.BORDER_REFLECT_101)
    )


def _dust_mask(height: int, width: int, old: OldPhoto, rng: np.random.Generator) -> FloatImage:
    mask = np.zeros((height, width), dtype=np.uint8)
    for _ in range(old.dust):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        axes = (int(rng.uniform(0, 2.2) * old.scale), int(rng.uniform(0, 2.2) * old.scale))
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, int(rng.integers(120, 256)), -1)
    return _soften(mask, 0.4 * old.scale)


def _scratch_mask(height: int, width: int, old: OldPhoto, rng: np.random.Generator) -> FloatImage:
    """Long, nearly straight strokes (folds and knife marks) and short curled hairs."""
    mask = np.zeros((height, width), dtype=np.uint8)
    for _ in range(old.scratches):
        long = rng.random() < 0.6
        length = float(rng.uniform(0.3, 1.2) if long else rng.uniform(0.05, 0.2)) * max(height, width)
        heading = rng.normal(np.pi / 2, 0.35) if rng.random() < 0.6 else rng.uniform(0, np.pi)
        turns = np.cumsum(rng.normal(0, 0.04 if long else 0.35, 12)) + heading
        steps = np.stack([np.cos(turns), np.sin(turns)], axis=1) * (length / 12)
        points = np.cumsum(steps, axis=0) + rng.uniform(0, 1, 2) * (width, height) - steps.sum(0) / 2
        thickness = max(1, round(float(rng.uniform(0.4, 1.8)) * old.scale))
        colour = int(rng.integers(110, 256))
        cv2.polylines(mask, [np.rint(points).astype(np.int32)], False, colour, thickness, cv2.LINE_AA)
    return _soften(mask, 0.4 * old.scale)
