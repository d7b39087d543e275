"""Whether an earlier run made the very picture that this one would make: from these bytes, with these settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from prefrestore.files.fingerprints import file_hash, first_differences
from prefrestore.restoration.earlier import read_record
from prefrestore.restoration.plan import Task


@dataclass(frozen=True, kw_only=True)
class Standing:
    """done: output and record are there and of this identity. differs: what is not the same, one sentence; empty if
    nothing was there.
    """

    done: bool
    differs: str = ""


def settings_for(task: Task, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What decides one picture's result: a run's settings, with the prompt that is this picture's own."""
    if task.caption is None:
        return dict(settings)
    return {**settings, "options": {**settings.get("options", {}), "prompt": task.caption}}


class Standings:
    """The `Standing` of each task of a run with these settings (JSON values); each picture is read once.

    Args:
        settings: as `prefrestore.restoration.batch.PhotoRestorer` writes them into its records.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self.of = lru_cache(maxsize=None)(self._of)

    def is_done(self, task: Task) -> bool:
        """Whether there is nothing left to do for this picture."""
        return self.of(task).done

    def _of(self, task: Task) -> Standing:
        if not task.output.exists() or not task.record.exists():
            return Standing(done=False)
        record = read_record(task.record)
        run = record.get("run") if record else None
        if record is None or not isinstance(run, dict):
            return _other(task, f"{task.record} does not say how it was made")
        files = record.get("files")
        named = files.get("output") if isinstance(files, dict) else None
        if named != task.output.name:
            return _other(task, f"{task.record} speaks of {named}")
        try:
            same = file_hash(task.source) == record.get("input_sha256")
        except OSError:
            # Whoever reads it says why it cannot be read.
            return Standing(done=False)
        if not same:
            name = record["input"].get("name")
            what = "the input has changed" if name == task.source.name else f"the output was made from {name}"
            return _other(task, what)
        unlike = first_differences(run, settings_for(task, self._settings))
        if unlike:
            return _other(task, f"it was made with {unlike}")
        return Standing(done=True)


def _other(task: Task, why: str) -> Standing:
    return Standing(done=False, differs=f"{task.source} is done again: {why}")
