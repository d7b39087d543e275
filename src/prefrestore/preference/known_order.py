"""Versions of one face whose order of preference is known without asking anybody.

A *ladder* is three aligned pictures of the same face, best first: the sharp face, and two strengths of the same
damage. Three pairs follow from it. Plain seeded functions on uint8 arrays; no model is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from prefrestore.degrade.old_photo import OldPhoto
from prefrestore.degrade.presets import get_preset
from prefrestore.degrade.synthetic import DegradationParameters, apply_parameters, jpeg, sample_parameters, to_uint8
from prefrestore.faces.align import ffhq_template

Image = npt.NDArray[np.uint8]
MakeLadder = Callable[[Image, np.random.Generator], tuple[Image, Image, Image]]

PAIRS = ((0, 1), (0, 2), (1, 2))
"""The pairs (chosen, rejected) of a ladder."""

CHAINS = ("bench-mild", "bench-severe", "paper", "classic", "old-photo")
"""Presets of `prefrestore.degrade` that the kind ``degraded`` draws from; nearly clean ones have no sure order."""

MILDER = (0.3, 0.65)
"""Bounds of the weaker damage as a share of the stronger one."""


def milder(parameters: DegradationParameters, share: float) -> DegradationParameters:
    """The same degradation with ``share`` (0..1) of every strength: no part of it is worse, and the tone stays."""
    old = parameters.old_photo
    return replace(
        parameters,
        sigma=(parameters.sigma[0] * share, parameters.sigma[1] * share),
        factor=1 + (parameters.factor - 1) * share,
        noise=parameters.noise * share,
        quality=round(100 - (100 - parameters.quality) * share),
        old_photo=None if old is None else _milder_print(old, share),
    )


def _milder_print(old: OldPhoto, share: float) -> OldPhoto:
    return replace(
        old,
        grain=old.grain * share,
        texture=old.texture * share,
        stain=old.stain * share,
        dust=round(old.dust * share),
        scratches=round(old.scratches * share),
        screen_strength=old.screen_strength * share,
        sharpen=old.sharpen * share,
    )


def degraded(face: Image, rng: np.random.Generator) -> tuple[Image, Image, Image]:
    """The face (in the tone of the print, if it became one) and two strengths of one drawn degradation chain."""
    strong = sample_parameters(get_preset(str(rng.choice(CHAINS))), min(face.shape[:2]), rng)
    weak = milder(strong, _share(rng))
    seed = int(rng.integers(2**62))  # the same grain and the same stains at both strengths
    worse = apply_parameters(face, strong, np.random.default_rng(seed))
    better = apply_parameters(face, weak, np.random.default_rng(seed))
    return worse.target, better.lq, worse.lq


def blurred(face: Image, rng: np.random.Generator) -> tuple[Image, Image, Image]:
    """A Gaussian blur of 1.2 to 6 px at 256 px, the commonest fault of a restorer that is unsure."""
    sigma = _log_uniform(rng, 1.2, 6.0) * len(face) / 256

    def version(share: float) -> Image:
        return np.asarray(cv2.GaussianBlur(face, (0, 0), max(0.4, sigma * share), borderType=cv2.BORDER_REFLECT_101))

    return face, version(_share(rng)), version(1.0)


def noisy(face: Image, rng: np.random.Generator) -> tuple[Image, Image, Image]:
    """White or coarse noise of 5 to 30 grey levels, coloured or not: what a flow stopped too early leaves."""
    level = _log_uniform(rng, 5, 30)
    channels = 1 if rng.random() < 0.5 else 3
    noise = rng.standard_normal((*face.shape[:2], channels), dtype=np.float32)
    if rng.random() < 0.4:
        noise = cv2.GaussianBlur(noise, (0, 0), float(rng.uniform(0.5, 1.5))).reshape(noise.shape)
        noise /= noise.std()

    def version(share: float) -> Image:
        return to_uint8(face.astype(np.float32) + level * share * noise)

    return face, version(_share(rng)), version(1.0)


def oversharpened(face: Image, rng: np.random.Generator) -> tuple[Image, Image, Image]:
    """An unsharp mask strong enough for halos: what chasing sharpness alone ends in."""
    amount, sigma = float(rng.uniform(1.5, 4.0)), float(rng.uniform(0.8, 2.5)) * len(face) / 256
    detail = face.astype(np.float32) - cv2.GaussianBlur(face.astype(np.float32), (0, 0), sigma)

    def version(share: float) -> Image:
        return to_uint8(face + amount * share * detail)

    return face, version(float(rng.uniform(*MILDER))), version(1.0)


def compressed(face: Image, rng: np.random.Generator) -> tuple[Image, Image, Image]:
    """JPEG of quality 4 to 35, and one at least 20 better."""
    quality = int(rng.integers(4, 36))
    return face, jpeg(face, int(rng.integers(quality + 20, 81))), jpeg(face, quality)


def warped(face: Image, rng: np.random.Generator) -> tuple[Image, Image, Image]:
    """A smooth random displacement, mostly about an eye, the nose or the mouth: sharp, and no longer a likely face."""
    height, width = face.shape[:2]
    unit = width / 256
    field = rng.standard_normal((height, width, 2), dtype=np.float32)
    field = np.asarray(cv2.GaussianBlur(field, (0, 0), float(rng.uniform(7, 20)) * unit))
    field *= _log_uniform(rng, 4, 12) * unit / float(np.sqrt((field**2).sum(-1).mean()))
    if rng.random() < 0.75:
        x, y = ffhq_template(width)[rng.integers(5)]
        across, down = np.arange(width, dtype=np.float32) - x, np.arange(height, dtype=np.float32) - y
        radius = float(rng.uniform(25, 60)) * unit
        field *= np.exp(-0.5 * (across[None, :, None] ** 2 + down[:, None, None] ** 2) / radius**2)
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)

    def version(share: float) -> Image:
        at = (grid + share * field).astype(np.float32)
        moved = cv2.remap(face, at, None, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101)  # type: ignore[call-overload]
        return np.asarray(moved)

    return face, version(_share(rng)), version(1.0)


def equal(face: Image, rng: np.random.Generator) -> tuple[Image, Image, Image]:
    """Three versions that nobody can tell apart: the face, stored as a good JPEG, and enlarged and shrunk again.

    Every pair is a tie; without them a scorer learns the fingerprint of files instead of what is seen.
    """
    side = round(len(face) * float(rng.uniform(1.2, 1.6)))
    larger = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
    back = np.asarray(cv2.resize(larger, (face.shape[1], face.shape[0]), interpolation=cv2.INTER_AREA))
    versions = [face, jpeg(face, int(rng.integers(93, 99))), back.astype(np.uint8, copy=False)]
    first, second, third = rng.permutation(3)
    return versions[first], versions[second], versions[third]


LADDERS: dict[str, MakeLadder] = {
    "degraded": degraded,
    "blurred": blurred,
    "noisy": noisy,
    "oversharpened": oversharpened,
    "compressed": compressed,
    "warped": warped,
    "equal": equal,
}


def preference_of(kind: str) -> float:
    """Probability that the chosen picture of a pair of this kind is the better one: 1, or 0.5 for ties."""
    return 0.5 if kind in ("equal", "round trip") else 1.0


def augment(images: Image, rng: np.random.Generator) -> Image:
    """The same seeded change to every picture (N,H,W,3) of a ladder, none of which turns their order round.

    A mirror image, a shift of up to 6 px at 256 px, another tone (a quarter grey), and now and then one more JPEG or
    one more resampling, so that traces of storage are found on the better pictures too.
    """
    height, width = images.shape[1:3]
    out = images[:, :, ::-1] if rng.random() < 0.5 else images
    reach = max(1, round(6 * width / 256))
    down, right = rng.integers(-reach, reach + 1, 2)
    margin = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    padded = np.pad(out, margin, mode="reflect")
    out = padded[:, reach + down : reach + down + height, reach + right : reach + right + width]
    out = _toned(out, rng)
    if rng.random() < 0.25:
        factor = float(rng.uniform(0.65, 1.0))
        small = (max(1, round(width * factor)), max(1, round(height * factor)))
        shrunk = [cv2.resize(picture, small, interpolation=cv2.INTER_AREA) for picture in out]
        out = np.stack([cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC) for picture in shrunk])
    if rng.random() < 0.3:
        quality = int(rng.integers(75, 97))
        out = np.stack([jpeg(np.ascontiguousarray(picture), quality) for picture in out])
    return np.ascontiguousarray(out).astype(np.uint8, copy=False)


def _toned(images: Image, rng: np.random.Generator) -> Image:
    """Gamma, contrast and a tint by one table a channel; a quarter of the draws is grey."""
    unit = np.arange(256, dtype=np.float32) / 255
    curve = unit ** float(np.exp(rng.normal(0, 0.18)))
    low, high = float(rng.uniform(0, 0.12)), float(rng.uniform(0.88, 1.0))
    gains = np.exp(rng.normal(0, 0.05, 3)).astype(np.float32)
    table = to_uint8((low + (high - low) * curve)[:, None] * gains[None] * 255)
    tall = np.ascontiguousarray(images).reshape(-1, *images.shape[2:])
    if rng.random() < 0.25:
        tall = np.repeat(cv2.cvtColor(tall, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=-1)
    return np.asarray(cv2.LUT(tall, table[None])).reshape(images.shape).astype(np.uint8, copy=False)


def _share(rng: np.random.Generator) -> float:
    return float(rng.uniform(*MILDER))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
