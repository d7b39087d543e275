"""What a face is told in training: some of what is so, or what is not; and sentences whose meaning is known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from prefrestore.data.attributes import CLASSES, phrase_and_told

_UNTOLD = ("pose", "headwear")
"""Not steered: training mirrors faces, so no words say which side; hats are rare and reach beyond the face."""
_ODD = ("child", "sunglasses", "covered")
"""Classes that are told where they are true, and never asked for where they are not."""
_ASIDE = (
    "in front of a plain wall", "in a dark suit and tie", "studio light", "outdoors", "a blurred background",
    "restore this photo", "sharp and detailed", "high quality", "an old photograph", "with earrings", "in a red dress",
    "facing the camera", "looking to the side", "black and white", "an official portrait", "at a conference",
    "with a necklace", "wearing a white shirt", "green eyes", "a face", "a person", "soft light",
)  # fmt: skip
"""What captions also say, and what is then not told of any attribute."""


def classes_of(told: np.ndarray) -> dict[str, str]:
    """The attributes that a vector of `told_vector` tells."""
    flat = [(name, c) for name, classes in CLASSES.items() for c in classes]
    return {name: c for (name, c), value in zip(flat, told, strict=True) if value > 0}


def rows_of(told: Tensor) -> dict[str, Tensor]:
    """A vector (B,K) as `told_vector` makes it -> the rows (B,C) of each attribute."""
    parts = told.split([len(classes) for classes in CLASSES.values()], dim=1)
    return dict(zip(CLASSES, parts, strict=True))


def told_of(truth: Mapping[str, str], rng: np.random.Generator, asked: bool) -> dict[str, str]:
    """Some of a face's attributes; where ``asked``, one of another class than it has, and few others."""
    known = [name for name in truth if name not in _UNTOLD]
    told = {name: truth[name] for name in known if rng.random() < (0.2 if asked else 0.6)}
    if asked and known:
        name = str(rng.choice(known))
        told[name] = str(rng.choice([c for c in CLASSES[name] if c not in (truth[name], *_ODD)]))
    return told


def sentence(rng: np.random.Generator) -> tuple[str, list[int]]:
    """A caption and the class of each attribute that it says, the number of classes where it says nothing."""
    drawn = {name: str(rng.choice(classes)) for name, classes in CLASSES.items() if name != "pose"}
    text, told = phrase_and_told(drawn, rng, keep=float(rng.uniform(0.05, 0.9)))
    aside = [str(each) for each in rng.choice(_ASIDE, size=int(rng.integers(3)), replace=False)]
    if rng.random() < 0.15:
        text, told = "", {}
    parts = [part for part in [text.rstrip("."), *aside] if part]
    rng.shuffle(parts)
    joined = ", ".join(parts)
    if rng.random() < 0.3:
        joined = joined.lower()
    return joined, [classes.index(told[name]) if name in told else len(classes) for name, classes in CLASSES.items()]
