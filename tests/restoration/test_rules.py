"""Which faces are restored."""

from typing import Any

import numpy as np
import pytest

from prefrestore.restoration.options import RestoreOptions
from prefrestore.restoration.rules import Decision, FaceFacts, decide, warnings_of


def decided(options: RestoreOptions | None = None, **facts: Any) -> Decision:
    usual: dict[str, Any] = {"width": 60.0, "yaw": 5.0, "quality": 0.3, "photo_per_model": 0.5, "own_pixels": 128.0}
    usual["score"] = 0.9
    return decide(FaceFacts(**{**usual, **facts}), index=1, options=options or RestoreOptions())


def skip(chosen: Any = None, **facts: Any) -> str | None:
    decision = decided(RestoreOptions(faces=chosen), **facts)
    return None if decision.strength == 1 else decision.reason


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"width": 15.0}, "too small"),
        ({"yaw": 60.0}, "profile"),
        ({"quality": 0.9, "own_pixels": 256.0}, "already sharp"),
        ({"quality": 0.55, "photo_per_model": 3.0}, "larger than the model"),
    ],
)
def test_reasons(facts: dict[str, float], word: str) -> None:
    assert word in (skip(**facts) or "")
    assert skip(chosen=[1], **facts) is None
    assert skip(chosen=[0, 2], **facts) == "not among the chosen faces"


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"quality": 0.9, "own_pixels": 128.0},  # sharp, but with few pixels
        {"quality": 0.3, "photo_per_model": 3.0},  # large, but badly degraded
    ],
)
def test_no_reason(facts: dict[str, float]) -> None:
    assert skip(**facts) is None


@pytest.mark.parametrize(
    ("facts", "options", "rule"),
    [
        ({"score": 0.6}, {"min_score": 0.7}, "score"),
        ({"points_outside": 1}, {}, "edge"),
        ({"share_outside": 0.2}, {}, "edge"),
        ({"width": 15.0}, {}, "size"),
        ({"width": 70.0}, {"min_face": 80}, "size"),
        ({"yaw": 60.0}, {}, "yaw"),
        ({"yaw": 40.0}, {"max_yaw": 30}, "yaw"),
        ({"quality": 0.9, "own_pixels": 256.0}, {}, "sharp"),
        ({"quality": 0.5, "own_pixels": 256.0}, {"sharp_enough": 0.4}, "sharp"),
        ({"quality": 0.55, "photo_per_model": 3.0}, {}, "large"),
    ],
)
def test_the_rule_that_decides_is_named(facts: dict[str, Any], options: dict[str, Any], rule: str) -> None:
    decision = decided(RestoreOptions(**options), **facts)
    assert (decision.rule, decision.strength) == (rule, 0)
    everybody = decided(RestoreOptions(faces="all", **options), **facts)
    assert (everybody.rule, everybody.strength, everybody.reason) == ("all", 1, None)
    assert decided(RestoreOptions(faces=[1], **options), **facts).rule == "named"


@pytest.mark.parametrize(
    ("name", "low", "high", "fixed"),
    [
        ("quality", 0.3, 0.95, {"own_pixels": 256.0}),
        ("quality", 0.3, 0.95, {"photo_per_model": 3.0}),
        ("photo_per_model", 1.0, 4.0, {"quality": 0.55}),
        ("own_pixels", 128, 256, {"quality": 0.9}),
        ("share_outside", 0.0, 0.3, {}),
        ("width", 40.0, 8.0, {}),
        ("yaw", 20.0, 80.0, {}),
    ],
)
def test_no_rule_is_a_switch(name: str, low: float, high: float, fixed: dict[str, float]) -> None:
    """From one end to the other in 200 steps: from fully restored to left alone, never by a jump."""
    found = [decided(**fixed, **{name: float(value)}).strength for value in np.linspace(low, high, 201)]
    assert (found[0], found[-1]) == (1, 0) and found == sorted(found, reverse=True)
    assert max(abs(a - b) for a, b in zip(found, found[1:], strict=False)) < 0.1


def test_warnings() -> None:
    fact = FaceFacts(width=60, yaw=0, quality=0.2, photo_per_model=3.0, own_pixels=768)
    assert len(warnings_of(fact, 0.1)) == 2
    assert warnings_of(FaceFacts(width=60, yaw=0, quality=0.2, photo_per_model=1.0, own_pixels=256), 0.8) == ()


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"score": 0.7}, "0.70"),
        ({"points_outside": 2, "share_outside": 0.3}, "edge"),
        ({"own_edges": 0.2}, "lines or blocks"),
        ({"gain": 9.0}, "contrast"),
        ({"noise": 40.0}, "noise"),
    ],
)
def test_what_is_beyond_help_is_said(facts: dict[str, Any], word: str) -> None:
    usual: dict[str, Any] = {"width": 60, "yaw": 0, "quality": 0.2, "photo_per_model": 1.0, "own_pixels": 256}
    (said,) = warnings_of(FaceFacts(**{**usual, **facts}), 0.8)
    assert word in said
