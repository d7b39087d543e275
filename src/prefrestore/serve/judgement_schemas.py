"""What goes in and out as JSON where pictures are judged."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from prefrestore.serve.schemas import Asked


class Pair(BaseModel):
    """Two restorations of one face, in random order, and nothing about how they were made."""

    pair: str | None
    first: str | None = None
    second: str | None = None
    before: str | None = None
    message: str = ""


class Choice(Asked):
    """Which is better."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"pair": "9f" * 16, "choice": "first", "who": "ann"}]})

    pair: Annotated[str, Field(max_length=64)]
    choice: Literal["first", "second", "tie", "skip"]
    who: Annotated[str, Field(min_length=1, max_length=100)]


class Fit(BaseModel):
    """A scorer fitted to the judgements; ``before`` and ``after`` are its accuracy on those that were held out."""

    status: Literal["queued", "running", "done", "failed"] = "queued"
    message: str = ""
    done: int = 0
    of: int
    rule: str | None = None
    train: int | None = None
    held_out: int | None = None
    before: float | None = None
    after: float | None = None
    interval_after: tuple[float, float] | None = Field(default=None, description="95 % (Wilson).")
    scorer: str | None = Field(default=None, description="Below the service's folder.")


class FitRequest(Asked):
    """How to fit."""

    steps: Annotated[int, Field(ge=1, le=5000)] = 300
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2


class Judgements(BaseModel):
    """How many there are, and how many more make a difference."""

    count: int
    skipped: int
    ties: int
    enough: int
    missing: int
    pairs_left: int
    fit: Fit | None = None


class Judged(Judgements):
    """The new state, and what the two pictures were made with."""

    made: dict[str, dict[str, Any]]
