"""What people preferred: one JSON object a line, two pictures and which of them was chosen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from prefrestore.data.faces import read_face
from prefrestore.errors import ImageReadError, InvalidInputError

CHOICES = {"first": 1.0, "second": 0.0, "tie": 0.5}
"""choice -> probability that the first picture is the better one."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One comparison of two versions of a face, of equal size or not.

    choice: ``first``, ``second`` or ``tie``. who: who judged. when: ISO 8601. group: what else belongs together, for
    example the person on the pictures; pairs of one group are never split between training and holding out. place:
    file and line, for messages.
    """

    first: Path
    second: Path
    choice: str
    who: str
    when: str
    group: str | None
    place: str

    @property
    def preference(self) -> float:
        """Probability that the first picture is the better one: 1, 0 or 0.5."""
        return CHOICES[self.choice]


def read_judgements(files: Iterable[Path], *, skip_bad: bool = False) -> tuple[list[Judgement], list[str]]:
    """Read and check judgements; every picture is opened once, so that nothing is found out in mid-training.

    A line is ``{"first": path, "second": path, "choice": "first" | "second" | "tie", "who": text, "when": ISO 8601
    date or time}``, and may have a ``"group"``; paths are relative to the file. Empty lines are passed over.

    Returns:
        The judgements, and with ``skip_bad`` one sentence for each line that was left out.

    Raises:
        InvalidInputError: a file cannot be read, no judgement is left, or (without ``skip_bad``) a line is no such
            object or names a picture that is missing or unreadable; the message names file and line.
    """
    good: list[Judgement] = []
    bad: list[str] = []
    checked: dict[Path, str | None] = {}
    for file in files:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"{file}: the judgements cannot be read ({error})") from error
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                good.append(_judgement(line, Path(file), f"{file}, line {number}", checked))
            except InvalidInputError as error:
                if not skip_bad:
                    raise
                bad.append(str(error))
    if not good:
        raise InvalidInputError(f"there is no usable judgement in {', '.join(map(str, files)) or 'no file'}")
    return good, bad


def _judgement(line: str, file: Path, place: str, checked: dict[Path, str | None]) -> Judgement:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise InvalidInputError(f"{place}: this is no JSON ({error})") from error
    if not isinstance(entry, dict):
        raise InvalidInputError(f"{place}: a judgement is a JSON object")
    first, second, choice, who, when = (
        _text(entry, name, place) for name in ("first", "second", "choice", "who", "when")
    )
    if choice not in CHOICES:
        raise InvalidInputError(f"{place}: the choice is {', '.join(CHOICES)}, not '{choice}'")
    try:
        datetime.fromisoformat(when.replace("Z", "+00:00"))
    except ValueError as error:
        raise InvalidInputError(f"{place}: 'when' is an ISO 8601 date, not '{when}'") from error
    pictures = [(file.parent / name).resolve() for name in (first, second)]
    if pictures[0] == pictures[1]:
        raise InvalidInputError(f"{place}: both pictures are {pictures[0]}")
    for picture in pictures:
        if picture not in checked:
            checked[picture] = _problem(picture)
        if checked[picture]:
            raise InvalidInputError(f"{place}: {checked[picture]}")
    group = _text(entry, "group", place) if entry.get("group") is not None else None
    return Judgement(
        first=pictures[0], second=pictures[1], choice=choice, who=who, when=when, group=group, place=place
    )


def _text(entry: dict[str, Any], name: str, place: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidInputError(f"{place}: '{name}' is missing or no text")
    return value


def _problem(picture: Path) -> str | None:
    if not picture.is_file():
        return f"the picture {picture} is missing"
    try:
        read_face(picture, 8)
    except (ImageReadError, InvalidInputError) as error:
        return str(error)
    return None


@dataclass(frozen=True, kw_only=True)
class Split:
    """Judgements to train on and to hold out, and the sentence that says by what they were parted."""

    train: tuple[Judgement, ...]
    held_out: tuple[Judgement, ...]
    rule: str


def hold_out(judgements: Sequence[Judgement], share: float = 0.2, *, seed: int = 0) -> Split:
    """Part the judgements so that no picture, and no group, is on both sides; about ``share`` is held out.

    Pairs that share a picture or a group belong together. Where all of them do, judges are held out instead, and
    where there is one judge only, single pairs are, which flatters the result.

    Raises:
        InvalidInputError: fewer than two judgements, or a share outside 0..1.
    """
    if not 0 < share < 1:
        raise InvalidInputError(f"the share of judgements to hold out lies between 0 and 1, not at {share}")
    if len(judgements) < 2:
        raise InvalidInputError("holding out needs at least two judgements")
    rng = np.random.default_rng(seed)
    rules = (
        ("by picture and group: neither is on both sides", _connected(judgements)),
        ("by judge: all pairs share pictures or a group", [judgement.who for judgement in judgements]),
        ("by pair: one judge, and all pairs share pictures or a group", list(map(str, range(len(judgements))))),
    )
    rule, keys = next((rule, keys) for rule, keys in rules if len(set(keys)) > 1)
    names = sorted(set(keys))
    sizes = {name: keys.count(name) for name in names}
    wanted, chosen = max(1, round(share * len(judgements))), set[str]()
    for name in rng.permutation(names):
        if len(chosen) + 1 < len(names) and sum(sizes[other] for other in chosen) + sizes[str(name)] <= wanted:
            chosen.add(str(name))
    if not chosen:
        chosen = {min(names, key=lambda name: sizes[name])}
    pairs = list(zip(judgements, keys, strict=True))
    return Split(
        train=tuple(judgement for judgement, key in pairs if key not in chosen),
        held_out=tuple(judgement for judgement, key in pairs if key in chosen),
        rule=rule,
    )


def _connected(judgements: Sequence[Judgement]) -> list[str]:
    """A name for each judgement, equal where judgements are linked by pictures or groups (union-find)."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for judgement in judgements:
        links = [f"picture {judgement.second}"] + ([f"group {judgement.group}"] if judgement.group else [])
        for link in links:
            parent[root(link)] = root(f"picture {judgement.first}")
    return [root(f"picture {judgement.first}") for judgement in judgements]
