"""Which faces of a photo are restored, how strongly, and what is said about them.

No rule is a switch: between two values its strength falls from 1 to 0, so that the frames of one scene do not flicker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prefrestore.restoration.options import RestoreOptions

# Below a limit of quality a face's strength rises to 1 over this much.
SOFT_QUALITY = 0.10
# A face whose crop has fewer photo pixels across than this is never "already sharp": the model adds detail. Below FEW
# it is restored fully.
FEW, OWN_PIXELS = 154, 192
# Photo pixels for each model pixel, above which little of what makes the face look sharp is the model's to restore.
# Such a face is restored only if its quality is below DEGRADED, so that it cannot have had detail beyond the
# model's. The rule sets in from LARGE on.
LARGE, TOO_LARGE = 2.0, 2.5
DEGRADED = 0.5
SOFT_WIDTH = 1.25  # times min_face: where a small face is restored fully
SOFT_YAW = 5.0  # degrees below max_yaw: up to there a turned face is restored fully
SOFT_SCORE = 0.05  # above min_score: the same
# Of the area that is pasted, outside the photo: more was never seen, and mirroring it draws half a face. Up to half
# of that a face is restored fully.
CUT = 0.10
# SFace cosine between the face before and after, below which the two may be taken for different people.
# Measured on 166 faces: pairs of different people (one of them degraded) stay below 0.32 in 99 % of the
# cases, while mildly degraded faces reach 0.38 with their own original in 99 %. Severely degraded ones reach
# 0.33 in half of the cases only: there the warning says what is true, that the input no longer shows who it
# is.
SAME_PERSON = 0.30
# The detector's score, below which it is said: faces in focus score 0.78 and more, animals and drawings may too.
SURE = 0.80
# See `prefrestore.faces.damage.own_edges`: half-way from none to certain.
OWN_EDGES = 0.5
# Levels of 255. The model learnt up to 20 before the noise was stored and shrunk.
MOST_NOISE = 22.0
# Times that a face's contrast was raised: from here on the steps of 8 bits become part of what the model sees.
MOST_GAIN = 6.0

Rule = Literal[
    "default", "named", "all", "not named", "strength", "score", "edge", "size", "yaw", "sharp", "large", "likeness"
]
"""What decided: ``default`` restores; the others as ``--faces``, ``--strength``, ``--min-score``, the photo's edge,
``--min-face``, ``--max-yaw``, ``--sharp-enough``, a face larger than the model, and ``--keep-likeness``."""


@dataclass(frozen=True, kw_only=True)
class FaceFacts:
    """What the rules look at."""

    width: float
    """Of the box, in photo pixels."""
    yaw: float
    """Degrees, 0 frontal to 90 profile."""
    quality: float
    """0..1."""
    photo_per_model: float
    """Photo pixels for each pixel of the model's crop."""
    own_pixels: float
    """Photo pixels across the crop."""
    clarity: float = 0.0
    """0..1: the quality before grain and blur, which leave a person's likeness, were taken off."""
    score: float = 1.0
    """The detector's, 0..1."""
    points_outside: int = 0
    """Of the five points, outside the photo."""
    share_outside: float = 0.0
    """Of the area that is pasted, outside the photo, 0..1."""
    own_edges: float = 1.0
    """How far its hard edges are its own and not strokes or blocks, 0..1."""
    noise: float = 0.0
    """Levels of 255, as the model is shown them."""
    gain: float = 1.0
    """How many times the crop's contrast was raised for the model."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the rules say of one face."""

    rule: Rule
    strength: float = 1.0
    """0 (left alone) to 1."""
    reason: str | None = None
    """Why the strength is below 1, as half a sentence."""


def decide(facts: FaceFacts, *, index: int, options: RestoreOptions) -> Decision:
    """How strongly one face is restored.

    The user's choice comes first: a face that is named is restored whatever the other rules say, one that is
    not named is skipped. Of the other rules the one that asks for the least strength decides.
    """
    if options.faces == "all":
        return Decision(rule="all")
    if options.faces is not None:
        if index in options.faces:
            return Decision(rule="named")
        return Decision(rule="not named", strength=0, reason="not among the chosen faces")
    least = Decision(rule="default")
    for decision in _rules(facts, options):
        if decision.strength < least.strength:
            least = decision
    return least


def _rules(facts: FaceFacts, options: RestoreOptions) -> tuple[Decision, ...]:
    """All rules, the first of equals decides."""
    whole = 0.0 if facts.points_outside else _rising(facts.share_outside, CUT, CUT / 2)
    score, width, yaw = options.min_score, options.min_face, options.max_yaw
    sharp = _rising(facts.quality, options.sharp_enough, options.sharp_enough - SOFT_QUALITY)
    plain = _rising(facts.quality, DEGRADED, DEGRADED - SOFT_QUALITY)
    large = _rising(facts.photo_per_model, TOO_LARGE, LARGE)
    return (
        Decision(
            rule="score",
            strength=1 if score == 0 else _rising(facts.score, score, score + SOFT_SCORE),
            reason=f"doubtful: the detector is {facts.score:.2f} sure that it is a face, the least is {score:g}",
        ),
        Decision(
            rule="edge",
            strength=whole,
            reason=f"cut by the picture's edge: {facts.points_outside} of its five points and "
            f"{facts.share_outside:.0%} of its area are outside",
        ),
        Decision(
            rule="size",
            strength=_rising(facts.width, width, width * SOFT_WIDTH),
            reason=f"too small: {facts.width:.0f} px wide, the least is {width:g}",
        ),
        Decision(
            rule="yaw",
            strength=_rising(facts.yaw, yaw, yaw - SOFT_YAW),
            reason=f"turned in profile by about {facts.yaw:.0f} degrees, the most is {yaw:g}",
        ),
        Decision(
            rule="sharp",
            strength=max(sharp, _rising(facts.own_pixels, OWN_PIXELS, FEW)),
            reason=f"already sharp: quality {facts.quality:.2f}, {options.sharp_enough:g} is enough",
        ),
        Decision(
            rule="large",
            strength=max(plain, large),
            reason=f"{facts.photo_per_model:.1f} times larger than the model and not degraded enough to gain "
            f"(quality {facts.quality:.2f}, restored below {DEGRADED:g})",
        ),
    )


def _rising(value: float, none: float, all_: float) -> float:
    """0 at ``none`` and beyond, 1 at ``all_`` and beyond, a straight line between; in either direction."""
    if none == all_:
        return float(value > none)
    return min(max((value - none) / (all_ - none), 0.0), 1.0)


def warnings_of(facts: FaceFacts, similarity: float) -> tuple[str, ...]:
    """What the user should know about a restored face: one sentence each."""
    said = []
    if similarity < SAME_PERSON:
        said.append(
            f"the restored face may not look like the same person: identity similarity {similarity:.2f}, "
            f"below {SAME_PERSON}"
        )
    if facts.photo_per_model > TOO_LARGE:
        said.append(f"the face is {facts.photo_per_model:.1f} times larger than the model, so it will look soft")
    if facts.score < SURE:
        said.append(
            f"the detector is only {facts.score:.2f} sure that this is a face: an animal or a drawing can look like one"
        )
    if facts.points_outside > 0 or facts.share_outside > CUT:
        said.append(f"the picture's edge cuts the face: {facts.share_outside:.0%} of what was drawn was never seen")
    if facts.own_edges < OWN_EDGES:
        said.append("lines or blocks lie over the face (scratches, poor JPEG, a drawing's strokes): they may stay")
    if facts.gain > MOST_GAIN:
        said.append(f"the face has so little contrast (raised {facts.gain:.0f} times) that its details are guesses")
    if facts.noise > MOST_NOISE:
        said.append(f"noise of {facts.noise:.0f} levels is beyond what the model learnt, so blotches may stay")
    return tuple(said)
