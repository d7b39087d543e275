"""Every photo once, however many workers die: who is tried again, how, and who is set aside. Knows no cluster."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefrestore.engines.manifest import Entry, Manifest, verdict
from prefrestore.files.fingerprints import InputFacts, fingerprint
from prefrestore.restoration.batch import Outcome, is_done
from prefrestore.restoration.plan import Task
from prefrestore.restoration.standing import Standings, settings_for

MAX_TRIES = 3

Round = Callable[[Sequence[Task], bool], Iterator[Entry]]
"""(tasks, one at a time) -> an entry for each photo that came to an end, in any order; those of a worker that died
are missing. One at a time: a worker has no second photo in hand, so a death is the doing of the photo in hand."""


@dataclass(frozen=True)
class _Version:
    """Tells one writing of a file from another."""

    inode: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> _Version | None:
        try:
            stat = os.stat(path)
        except OSError:
            return None
        return cls(stat.st_ino, stat.st_mtime_ns)


def run_rounds(
    tasks: Sequence[Task], run: Round, *, settings: Mapping[str, str], tries: int = MAX_TRIES
) -> Iterator[Entry]:
    """Run all tasks, those that were lost again, one at a time, up to ``tries`` times; yields an entry a task.

    Entries with the status ``lost`` come in between: the worker died and the photo is tried again. A photo that was
    lost after its record was written, which is the last thing written, is not done twice. One that was lost ``tries``
    times is set aside as ``failed``. settings: `fingerprint` of each task's settings, by the absolute source.
    """
    before = {task.source: _Version.of(task.record) for task in tasks}
    waiting = list(tasks)
    for number in range(1, tries + 1):
        if not waiting:
            return
        missing = {os.path.abspath(task.source): task for task in waiting}
        for entry in run(waiting, number > 1):
            # Whatever is delivered twice was asked for once.
            if missing.pop(entry.source, None) is not None:
                yield replace(entry, tries=number, settings=settings[entry.source])
        waiting = []
        for source, task in missing.items():
            lost = Entry(source=source, output=os.path.abspath(task.output), status="lost", tries=number)
            if is_done(task) and _Version.of(task.record) != before[task.source]:
                lost = _from_record(task, lost)
            elif number == tries:
                message = f"{source}: set aside, the worker died {tries} times while it had this picture in hand"
                lost = replace(lost, status="failed", message=message, set_aside=True)
            else:
                waiting.append(task)
                lost = replace(lost, message=f"{source}: the worker died")
            yield replace(lost, settings=settings[source], input=InputFacts.of(task.source))


def _from_record(task: Task, entry: Entry) -> Entry:
    """The entry of a photo whose worker died after it had written everything."""
    record: Mapping[str, Any] = json.loads(task.record.read_text(encoding="utf-8"))
    faces = record["faces"]
    restored = [face for face in faces if face["status"] == "restored"]
    return replace(
        entry,
        status="restored" if restored else "unchanged" if faces else "no face",
        message="" if restored else f"{task.source}: no face was {'restored' if faces else 'found'}",
        faces=len(faces),
        restored=len(restored),
        warnings=tuple(f"face {face['index']}: {text}" for face in restored for text in face["warnings"]),
    )


def drive(
    tasks: Sequence[Task], run: Round, *, manifest: Manifest, settings: Mapping[str, Any], skip_existing: bool = False
) -> Iterator[Outcome]:
    """Do every task, keep the manifest, and yield an outcome a task, as they come.

    Args:
        settings: what decides the results, JSON values; kept in the manifest, where a later run compares them.
        skip_existing: leave out what `prefrestore.engines.manifest.verdict` finds done; what it finds set aside is
            reported as it was.
    """
    marks = {os.path.abspath(task.source): fingerprint(settings_for(task, settings)) for task in tasks}
    earlier = Standings(settings)
    known = manifest.read() if skip_existing else {}
    waiting: dict[str, Task] = {}
    reasons: dict[str, str] = {}
    for task in tasks:
        source = os.path.abspath(task.source)
        entry = known.get(source)
        found = verdict(task, entry, marks[source], earlier) if skip_existing else "new"
        if found == "new":
            waiting[source] = task
            if skip_existing:
                reasons[source] = earlier.of(task).differs
        elif found == "set aside" and entry is not None:
            yield _outcome(entry, task)
        else:
            yield Outcome(source=task.source, status="skipped", output=task.output)
    if not waiting:
        return
    manifest.begin(settings)
    for entry in run_rounds(list(waiting.values()), run, settings=marks):
        manifest.add(entry)
        if entry.status != "lost":
            outcome = _outcome(entry, waiting[entry.source])
            why = reasons.get(entry.source)
            yield replace(outcome, notes=(why, *outcome.notes)) if why else outcome


def _outcome(entry: Entry, task: Task) -> Outcome:
    """The entry's outcome, with the names that the user gave."""
    return replace(entry.outcome, source=task.source, output=task.output if entry.outcome.output else None)
