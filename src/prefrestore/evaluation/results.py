"""The results of a run, in one JSON that is written as it grows and from which a stopped run goes on."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefrestore.errors import InvalidInputError
from prefrestore.evaluation.columns import COLUMNS, Row, summarise
from prefrestore.evaluation.folders import MeasuredSet
from prefrestore.evaluation.measure import Measured, SetAside
from prefrestore.files.atomic import written_beside

FORMAT = 1


class Results:
    """Rows of values by set, system and face.

    Args:
        path: the JSON.
        settings: everything that decides the values; JSON values only.
        resume: go on from what the file holds, if it is there. A dictionary among the settings may have gained or
            lost entries (another adapter, another level); what both have must be equal.

    Raises:
        InvalidInputError: the file is there but unreadable, or was made with other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, resume: bool = False) -> None:
        self.path = path
        # As it will be read back, so that tuples and paths compare equal.
        self.settings = json.loads(json.dumps(dict(settings), default=str))
        self.extra: dict[str, Any] = {}
        self.rows: dict[str, dict[str, dict[str, Row]]] = {}
        self.aside: dict[str, dict[str, str]] = {}
        self.resized: set[str] = set()
        self._distances: dict[tuple[str, str], dict[str, Any]] = {}
        if resume and path.exists():
            self._read()

    def _read(self) -> None:
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            settings, sets = stored["settings"], stored["sets"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(f"{self.path} is not a file of results ({error})") from error
        if differing := _differing(settings, self.settings):
            raise InvalidInputError(
                f"{self.path} was made with other settings ({', '.join(differing)}): name another file, or remove it"
            )
        self.settings = _joined(settings, self.settings)
        for title, entry in sets.items():
            self.aside[title] = dict(entry["aside"])
            self.rows[title] = {name: system["faces"] for name, system in entry["systems"].items()}
            self.resized |= {title} if entry["resized"] else set()

    def begin(self, faces: MeasuredSet) -> None:
        """Make place for a set and note the faces that its folders do not share."""
        self.rows.setdefault(faces.title, {})
        self.aside[faces.title] = dict(faces.aside)

    def add(self, title: str, item: Measured | SetAside) -> None:
        """Keep what the loop gave for a face of the set `title`."""
        if isinstance(item, SetAside):
            self.aside[title][item.face.name] = item.reason
            for rows in self.rows[title].values():
                rows.pop(item.face.name, None)
            return
        self.rows[title].setdefault(item.system, {})[item.face.name] = item.row
        self.resized |= {title} if item.resized else set()

    def add_distances(self, title: str, system: str, values: Mapping[str, Any]) -> None:
        """Keep FID and KID, which belong to a set and not to a face: entries as in a summary."""
        self._distances[title, system] = dict(values)

    def give(self, given: Mapping[tuple[str, str], Mapping[str, float]]) -> int:
        """Add values that another program measured, by set and face, to every system's row; how many found a row."""
        met = 0
        for title, systems in self.rows.items():
            for rows in systems.values():
                for face, row in rows.items():
                    if values := given.get((title, face), given.get(("", face))):
                        rows[face], met = {**row, **values}, met + 1
        return met

    def is_done(self, title: str, system: str, face: str) -> bool:
        """Whether the row is there already."""
        return face in self.rows.get(title, {}).get(system, {})

    def summaries(self, title: str) -> dict[str, dict[str, Any]]:
        """By system: the summary of its rows, see `prefrestore.evaluation.columns.summarise`."""
        return {
            system: summarise(rows.values()) | self._distances.get((title, system), {})
            for system, rows in self.rows[title].items()
        }

    @property
    def lost(self) -> int:
        """Faces that were set aside, over all sets."""
        return sum(len(aside) for aside in self.aside.values())

    def as_dict(self) -> dict[str, Any]:
        """The whole as JSON holds it."""
        sets = {}
        for title, systems in self.rows.items():
            summaries = self.summaries(title)
            sets[title] = {
                "aside": self.aside[title],
                "resized": title in self.resized,
                "systems": {name: {"summary": summaries[name], "faces": rows} for name, rows in systems.items()},
            }
        return {"format": FORMAT, "settings": self.settings, **self.extra, "sets": sets}

    def save(self) -> None:
        """Write the JSON whole or not at all; infinite values (PSNR of equal pictures) become null."""
        text = json.dumps(_finite(self.as_dict()), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        with written_beside(self.path) as part:
            part.write_text(text, encoding="utf-8")

    def lines(self) -> Iterator[dict[str, Any]]:
        """One flat record for each set, system and face."""
        for title, systems in self.rows.items():
            for system, rows in systems.items():
                for face, row in rows.items():
                    yield {"set": title, "system": system, "face": face, **row}

    def save_csv(self, path: Path) -> None:
        """Every face's values as a table; what has no value is empty."""
        lines = list(self.lines())
        present = [key for key in (*COLUMNS, "fallback") if any(line.get(key) is not None for line in lines)]
        with written_beside(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["set", "system", "face", *present], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(lines)


def _differing(stored: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """The settings in which two runs contradict each other."""
    found = []
    for key in sorted(stored.keys() & asked.keys()):
        if isinstance(stored[key], dict) and isinstance(asked[key], dict):
            found += [f"{key}: {inner}" for inner in _differing(stored[key], asked[key])]
        elif stored[key] != asked[key]:
            found.append(key)
    return found


def _joined(stored: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    joined = stored | asked
    return joined | {
        key: _joined(stored[key], asked[key])
        for key in stored.keys() & asked.keys()
        if isinstance(stored[key], dict) and isinstance(asked[key], dict)
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
