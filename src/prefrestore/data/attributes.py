"""What a caption can say of a face, as classes; and many sentences for the same face, whole and partial."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Attributes = Mapping[str, str]
"""Name -> class, of some or all of `CLASSES`."""

CLASSES: dict[str, tuple[str, ...]] = {
    "glasses": ("none", "glasses", "sunglasses"),
    "facial_hair": ("none", "stubble", "moustache", "beard"),
    "expression": ("serious", "smile", "broad smile"),
    "age": ("child", "young", "middle-aged", "elderly"),
    "hair": ("dark", "fair", "red", "grey", "bald", "covered"),
    "headwear": ("none", "headwear"),
    "gender": ("woman", "man"),
    "pose": ("frontal", "left", "right"),
}
"""The attributes and their classes."""

_ALIKE: dict[str, dict[str, str]] = {
    "glasses": {"eyeglasses": "glasses"},
    "facial_hair": {"goatee": "beard", "mustache": "moustache"},
    "expression": {"neutral": "serious", "frown": "serious", "faint smile": "smile"},
    "age": {"baby": "child", "teenager": "young", "young adult": "young"},
    "gender": {"girl": "woman", "boy": "man"},
    "pose": {"turned left": "left", "turned right": "right", "tilted": "frontal"},
}
_HAIR: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("covered", ("hidden", "covered")),
    ("bald", ("bald", "shaved head")),
    ("grey", ("grey", "gray", "white", "silver")),
    ("red", ("red", "ginger", "auburn", "orange")),
    ("fair", ("blond", "fair", "sandy", "light brown")),
    ("dark", ("black", "dark", "brown")),
)


def attributes_of(row: Mapping[str, object]) -> dict[str, str]:
    """The attributes of a row of ``captions.jsonl``; what has no class here, or is not told, is left out."""
    found = {}
    for name, classes in CLASSES.items():
        value = str(row.get(name) or "").strip().lower()
        if name == "hair":
            value = next((kind for kind, words in _HAIR if any(word in value for word in words)), "")
        elif name == "headwear" and value and value != "none":
            value = "headwear"
        value = _ALIKE.get(name, {}).get(value, value)
        if value in classes:
            found[name] = value
    return found


_PARTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("glasses", "none"): ("no glasses", "without glasses"),
    ("glasses", "glasses"): ("wearing glasses", "with glasses", "glasses", "with eyeglasses"),
    ("glasses", "sunglasses"): ("wearing sunglasses", "with dark sunglasses"),
    ("facial_hair", "none"): ("clean-shaven", "no beard", "without a beard"),
    ("facial_hair", "stubble"): ("with stubble", "unshaven"),
    ("facial_hair", "moustache"): ("with a moustache", "a moustache"),
    ("facial_hair", "beard"): ("with a beard", "bearded", "a beard"),
    ("expression", "serious"): ("not smiling", "with a serious face", "looking serious", "mouth closed"),
    ("expression", "smile"): ("smiling", "with a smile", "a slight smile"),
    ("expression", "broad smile"): ("smiling broadly", "with a broad smile", "laughing", "showing teeth"),
    ("age", "child"): ("a child",),
    ("age", "young"): ("young", "a young person"),
    ("age", "middle-aged"): ("middle-aged",),
    ("age", "elderly"): ("old", "an old person", "elderly"),
    ("hair", "dark"): ("with dark hair", "dark hair"),
    ("hair", "fair"): ("with blonde hair", "fair hair", "with light hair"),
    ("hair", "red"): ("with red hair", "with reddish hair"),
    ("hair", "grey"): ("with grey hair", "grey hair", "with white hair"),
    ("hair", "bald"): ("bald", "with a bald head"),
    ("hair", "covered"): ("hair covered",),
    ("headwear", "none"): ("no hat", "bareheaded"),
    ("headwear", "headwear"): ("wearing a hat", "with headwear"),
    ("pose", "frontal"): ("looking at the camera", "facing the camera"),
    # Training mirrors faces, so no words for which side it is.
    ("pose", "left"): ("turned to the side", "head turned"),
    ("pose", "right"): ("turned to the side", "head turned"),
}
_SELDOM = {
    ("headwear", "none"): 0.15,
    ("pose", "frontal"): 0.2,
    ("glasses", "none"): 0.6,
    ("expression", "serious"): 0.7,
}
"""How often a class that most faces have is mentioned, beside the others' 1."""
_PERSONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("child", "woman"): ("a girl", "a little girl"),
    ("child", "man"): ("a boy", "a little boy"),
    ("young", "woman"): ("a young woman", "a woman"),
    ("young", "man"): ("a young man", "a man"),
    ("middle-aged", "woman"): ("a middle-aged woman", "a woman"),
    ("middle-aged", "man"): ("a middle-aged man", "a man"),
    ("elderly", "woman"): ("an elderly woman", "an old woman", "an older woman"),
    ("elderly", "man"): ("an elderly man", "an old man", "an older man"),
}


def parts_of(attributes: Attributes) -> list[tuple[str, tuple[str, ...]]]:
    """The attributes that have words of their own, in the order of `CLASSES`: (name, the ways to say it)."""
    said = []
    for name in CLASSES:
        words = _PARTS.get((name, attributes.get(name, "")))
        if words and not (name == "facial_hair" and attributes.get("gender") == "woman" and words[0] == "clean-shaven"):
            said.append((name, words))
    return said


def told_vector(attributes: Attributes) -> np.ndarray:
    """Attributes as zeros and ones, one a class in the order of `CLASSES`, float32; what is not told is zeros."""
    return np.array(
        [float(attributes.get(name) == c) for name, classes in CLASSES.items() for c in classes], np.float32
    )


def phrase(attributes: Attributes, rng: np.random.Generator, *, keep: float = 0.7) -> str:
    """One of many sentences that say some of the attributes; never an empty one where there is anything to say.

    Args:
        keep: how often each attribute is mentioned.
    """
    return phrase_and_told(attributes, rng, keep=keep)[0]


def phrase_and_told(
    attributes: Attributes, rng: np.random.Generator, *, keep: float = 0.7
) -> tuple[str, dict[str, str]]:
    """A sentence as `phrase` makes it, and which of the attributes it says."""
    person = (attributes.get("age", ""), attributes.get("gender", ""))
    # Where the age is not known, no subject says one.
    persons = _PERSONS.get(person) or ((f"a {person[1]}",) if person[1] else ())
    subject = str(rng.choice(persons)) if persons and rng.random() < 0.8 else ""
    told: dict[str, str] = {}
    if subject:
        told["gender"] = person[1]
        if subject not in ("a woman", "a man"):
            told["age"] = person[0]
    said = []
    for name, words in parts_of(attributes):
        if name not in told and rng.random() < keep * _SELDOM.get((name, attributes[name]), 1.0):
            said.append(str(rng.choice(words)))
            told[name] = attributes[name]
    rng.shuffle(said)
    if not said and not subject:
        if choices := parts_of(attributes):
            name, words = choices[int(rng.integers(len(choices)))]
            said, told[name] = [str(rng.choice(words))], attributes[name]
    text = ", ".join(said)
    if subject:
        joint = " " if said and said[0].startswith(("with", "wearing", "smiling")) else ", "
        text = f"{subject}{joint}{text}" if text else subject
    if rng.random() < 0.3:
        text = f"{rng.choice(['a portrait of', 'a photo of'])} {text}" if subject else f"a face, {text}"
    if rng.random() < 0.5:
        text = text[:1].upper() + text[1:] + "."
    return text, told
