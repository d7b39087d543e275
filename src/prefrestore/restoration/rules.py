"""Which faces of a photo are restored, and what is said about those that are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Input quality (faces/quality.py) at and above which a face is left alone: 75 % of sharp originals reach it,
# and fewer than 1 % of mildly degraded ones (166 of each measured).
SHARP = 0.82
# A face with fewer pixels of its own than this share of the model's is never "already sharp": the model adds
# detail.
OWN_PIXELS = 0.75
# Photo pixels for each model pixel, above which the restored face is visibly coarser than its surroundings.
# Such a face is restored only if its quality is below DEGRADED, so that it cannot have had detail beyond the
# model's.
TOO_LARGE = 1.5
DEGRADED = 0.5
# SFace cosine between the face before and after, below which the two may be taken for different people.
# Measured on 166 faces: pairs of different people (one of them degraded) stay below 0.32 in 99 % of the
# cases, while mildly degraded faces reach 0.38 with their own original in 99 %. Severely degraded ones reach
# 0.33 in half of the cases only: there the warning says what is true, that the input no longer shows who it
# is.
SAME_PERSON = 0.30


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


def reason_to_skip(
    facts: FaceFacts, *, index: int, chosen: Sequence[int] | None, min_face: float, max_yaw: float
) -> str | None:
    """Why a face is not restored, as half a sentence; None if it is.

    The user's choice comes first: a face that is named is restored whatever the other rules say, one that is
    not named is skipped.
    """
    if chosen is not None:
        return None if index in chosen else "not among the chosen faces"
    if facts.width < min_face:
        return f"too small: {facts.width:.0f} px wide, the least is {min_face:g}"
    if facts.yaw > max_yaw:
        return f"turned in profile by about {facts.yaw:.0f} degrees, the most is {max_yaw:g}"
    if facts.quality >= SHARP and facts.photo_per_model >= OWN_PIXELS:
        return f"already sharp: quality {facts.quality:.2f}, {SHARP} is enough"
    if facts.photo_per_model > TOO_LARGE and facts.quality >= DEGRADED:
        return (
            f"{facts.photo_per_model:.1f} times larger than the model and not degraded enough to gain "
            f"(quality {facts.quality:.2f}, restored below {DEGRADED})"
        )
    return None


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
    return tuple(said)
