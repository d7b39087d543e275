"""A challenge's rules: the gate of likeness to the input, and the sum score where all its parts are there.

NTIRE 2026, real-world face restoration (Wang et al., arXiv 2604.10532, and the evaluation program of its repository): a
submission fails if more than ten faces are less like their input than their set's threshold; what passes is ranked by

    CLIP-IQA + MANIQA + MUSIQ / 100 + max(0, (10 - NIQE) / 10) + Q-Align / 5 + max(0, (100 - FID) / 100),

FID to FFHQ and over all sets together, the others the means over all faces.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from prefrestore.errors import InvalidInputError
from prefrestore.evaluation.columns import Row

PARTS = ("clipiqa", "maniqa", "musiq", "niqe", "qalign", "fid")
_GIVEN = {name: f"given_{name}" for name in PARTS if name != "fid"}
_FACE, _SET = ("face", "filename"), ("set", "dataset")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """measured: faces with a likeness. under: how many lie under their threshold. passes: None without a likeness.

    parts: what the score is made of, by name. score: None unless all are there. lacking: those that are not.
    """

    measured: int
    under: int
    allowed: int
    passes: bool | None
    parts: dict[str, float]
    score: float | None
    lacking: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """For the report's JSON."""
        return asdict(self)

    def sentence(self, system: str) -> str:
        """One sentence for a reader."""
        if self.passes is None:
            gate = "no likeness to the input was measured, so the gate is open"
        else:
            word = "passed" if self.passes else "not passed"
            gate = f"{self.under} of {self.measured} faces are under their threshold, {self.allowed} may be: {word}"
        if self.score is None:
            return f"{system}: {gate}; no score, for {', '.join(self.lacking)} are not known."
        return f"{system}: {gate}; score {self.score:.4f}."


def sum_score(parts: Mapping[str, float]) -> float | None:
    """The challenge's score of the six `PARTS`; None if one is missing."""
    if any(name not in parts for name in PARTS):
        return None
    return (
        parts["clipiqa"]
        + parts["maniqa"]
        + parts["musiq"] / 100
        + max(0.0, (10 - parts["niqe"]) / 10)
        + parts["qalign"] / 5
        + max(0.0, (100 - parts["fid"]) / 100)
    )


def judge(sets: Sequence[Iterable[Row]], fid: float | None, allowed: int) -> Verdict:
    """The verdict on the rows of all faces, set by set.

    MUSIQ is this package's own where it was measured, else the given one. NIQE must be given: the column ``niqe`` is
    the distance to another model than the published.
    """
    rows = [row for faces in sets for row in faces]
    marks = [mark for row in rows if (mark := row.get("unlike_input")) is not None]
    parts: dict[str, float] = {}
    for name, key in _GIVEN.items():
        for column in (name, key) if name == "musiq" else (key,):
            values = [value for row in rows if (value := row.get(column)) is not None]
            if values and len(values) == len(rows):  # a mean over some faces is not the challenge's
                parts.setdefault(name, sum(values) / len(values))
    if fid is not None:
        parts["fid"] = fid
    under = int(sum(marks))
    return Verdict(
        measured=len(marks),
        under=under,
        allowed=allowed,
        passes=under <= allowed if marks and len(marks) == len(rows) else None,
        parts=parts,
        score=sum_score(parts),
        lacking=tuple(name for name in PARTS if name not in parts),
    )


def read_scores(path: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Scores by set ("" where the file names none) and face, from a CSV such as the challenge's own program writes.

    A column ``face`` or ``Filename`` (a suffix is left out), one ``set`` or ``Dataset`` where there are several, and of
    ``clipiqa``, ``maniqa``, ``musiq``, ``niqe`` and ``qalign`` those that were measured, in any case and with any
    underscores; other columns are passed over.

    Raises:
        InvalidInputError: no such file, a column is missing, or a score is no number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            lines = list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidInputError(f"{path} cannot be read as a table of scores ({error})") from error
    found: dict[tuple[str, str], dict[str, float]] = {}
    for number, line in enumerate(lines, start=2):
        plain = {
            str(key).lower().replace("_", "").replace("-", ""): (value or "").strip() for key, value in line.items()
        }
        face = next((plain[name] for name in _FACE if plain.get(name)), "")
        title = next((plain[name] for name in _SET if plain.get(name)), "")
        if not face:
            raise InvalidInputError(f"{path}, line {number}: there is no column 'face' or 'Filename' with a name")
        try:
            values = {key: float(plain[name]) for name, key in _GIVEN.items() if plain.get(name)}
        except ValueError as error:
            raise InvalidInputError(f"{path}, line {number}: a score is no number ({error})") from error
        found[title, Path(face).with_suffix("").as_posix()] = values
    if not any(found.values()):
        raise InvalidInputError(f"{path} has none of the columns {', '.join(_GIVEN)}")
    return found


def thresholds(titles: Sequence[str], known: Mapping[str, float], asked: Sequence[str]) -> dict[str, float]:
    """The threshold of each set: those of the protocol, changed by ``0.3`` (for every set) or ``LFW-Test=0.6``.

    Raises:
        InvalidInputError: not a number in -1..1, or no such set.
    """
    result = {title: known[title] for title in titles if title in known}
    for text in asked:
        title, _, number = text.rpartition("=")
        if title and title not in titles:
            raise InvalidInputError(f"--likeness-threshold names the set '{title}'; there is {', '.join(titles)}")
        try:
            value = float(number)
        except ValueError:
            raise InvalidInputError(f"--likeness-threshold is a number, or SET=number, not '{text}'") from None
        if not -1 <= value <= 1:
            raise InvalidInputError(f"--likeness-threshold is a cosine, -1 to 1, not {number}")
        result |= dict.fromkeys([title] if title else titles, value)
    return result
