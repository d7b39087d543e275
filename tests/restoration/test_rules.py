"""Which faces are restored."""

from typing import Any

import pytest

from prefrestore.restoration.options import RestoreOptions
from prefrestore.restoration.rules import Decision, FaceFacts, decide, warnings_of


def decided(options: RestoreOptions | None = None, **facts: Any) -> Decision:
    usual: dict[str, Any] = {"width": 60.0, "yaw": 5.0, "quality": 0.3, "photo_per_model": 0.5, "score": 0.9}
    return decide(FaceFacts(**{**usual, **facts}), index=1, options=options or RestoreOptions())


def skip(chosen: Any = None, **facts: Any) -> str | None:
    decision = decided(RestoreOptions(faces=chosen), **facts)
    return None if decision.strength == 1 else decision.reason


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"width": 15.0}, "too small"),
        ({"yaw": 60.0}, "profile"),
        ({"quality": 0.9, "photo_per_model": 1.0}, "already sharp"),
        ({"quality": 0.6, "photo_per_model": 2.0}, "larger than the model"),
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
        {"quality": 0.9, "photo_per_model": 0.5},  # sharp, but with fewer pixels than the model's
        {"quality": 0.3, "photo_per_model": 3.0},  # large, but badly degraded
    ],
)
def test_no_reason(facts: dict[str, float]) -> None:
    assert skip(**facts) is None


def test_warnings() -> None:
    fact = FaceFacts(width=60, yaw=0, quality=0.2, photo_per_model=2.0)
    assert len(warnings_of(fact, 0.1)) == 2
    assert warnings_of(FaceFacts(width=60, yaw=0, quality=0.2, photo_per_model=1.0), 0.8) == ()
