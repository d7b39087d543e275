"""The manifest of a run on a cluster: one JSON line for every photo that came to an end, only ever appended to.

It says what was restored from which bytes with which settings, so that a run that broke off goes on where it was,
and it names the photos that were set aside, with the reason.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from prefrestore.errors import ImageWriteError
from prefrestore.files.fingerprints import InputFacts, fingerprint
from prefrestore.restoration.batch import Outcome, Status, is_done
from prefrestore.restoration.plan import Task
from prefrestore.restoration.standing import Standings

MANIFEST_NAME = "manifest.jsonl"

Verdict = Literal["new", "done", "set aside"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line about one photo.

    source: absolute. status: an outcome's, or ``lost`` (the worker died; another try follows).
    tries: how often the photo was given to a worker so far. set_aside: it is not tried again by a run that resumes.
    settings: `fingerprint` of the run's settings. worker: host and process id.
    """

    source: str
    output: str
    status: str
    message: str = ""
    faces: int = 0
    restored: int = 0
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    tries: int = 1
    set_aside: bool = False
    worker: str | None = None
    input: InputFacts = InputFacts()
    settings: str = ""

    def as_line(self) -> str:
        """The entry as JSON without line breaks."""
        return json.dumps({**self.__dict__, "input": self.input.__dict__}, ensure_ascii=False)

    @classmethod
    def from_line(cls, line: str) -> Entry:
        """Raises ValueError for a line that holds no entry."""
        try:
            values = json.loads(line)
            texts = {name: tuple(values.get(name, ())) for name in ("warnings", "notes")}
            return cls(**{**values, **texts, "input": InputFacts(**values["input"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"no entry: {error}") from error

    @property
    def outcome(self) -> Outcome:
        """The entry as what the run reports."""
        return Outcome(
            source=Path(self.source),
            status=cast(Status, self.status),  # ``lost`` is never reported
            message=self.message,
            faces=self.faces,
            restored=self.restored,
            warnings=self.warnings,
            notes=self.notes,
            output=None if self.status == "failed" else Path(self.output),
            seconds=self.seconds,
        )


class Manifest:
    """``manifest.jsonl`` in the output folder; written by one process, the one that drives the run.

    Each line reaches the disk before the next one is begun. A line that a crash cut short is left as it is and not
    believed: its photo is not known to be done.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Entry]:
        """The last entry of each source, by its absolute path; empty when there is no manifest."""
        if not self.path.exists():
            return {}
        entries = {}
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = Entry.from_line(line)
            except ValueError:
                # Of a run's settings, or cut short.
                continue
            entries[entry.source] = entry
        return entries

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Write what a run was asked for: the text behind the entries' fingerprint."""
        self._append(json.dumps({"run": dict(settings), "settings": fingerprint(settings)}, ensure_ascii=False))

    def add(self, entry: Entry) -> None:
        """Append one entry, to the disk. Raises ImageWriteError, naming the file, if it cannot be written."""
        self._append(entry.as_line())

    def _append(self, line: str) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        line = f"\n{line}"
                file.write(f"{line}\n".encode("utf-8", "backslashreplace"))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ImageWriteError(f"cannot write {self.path}: {error.strerror or error}") from error


def verdict(task: Task, entry: Entry | None, settings: str, earlier: Standings) -> Verdict:
    """What a run that resumes does with a photo.

    ``done``: output and record are there, and the manifest knows the photo with these settings (a fingerprint) and
    these bytes; where it does not know the photo, the record is asked. ``set aside``: with these settings and bytes it
    ended the worker again and again. ``new``: everything else.
    """
    if entry is None:
        return "done" if earlier.is_done(task) else "new"
    if entry.settings != settings or not entry.input.still_hold(task.source):
        return "new"
    if entry.set_aside:
        return "set aside"
    return "done" if entry.status not in ("failed", "lost") and is_done(task) else "new"
