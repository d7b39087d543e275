"""A caption for each picture: from one JSON or JSONL file, or from a text file beside each picture."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefrestore.errors import InvalidInputError
from prefrestore.restoration.plan import Task

SIDECAR = "txt"
"""In place of a file: the caption of ``a/b.jpg`` is the text of ``a/b.txt``."""


def with_captions(tasks: Sequence[Task], source: str) -> tuple[Task, ...]:
    """The tasks with their captions; a picture that has none keeps None.

    Args:
        source: `SIDECAR`, or a file: a JSON list, or JSONL, of objects with ``image`` and ``caption``. An image is a
            path, from the file's folder or the working one, or the bare name of a picture.

    Raises:
        InvalidInputError: the file cannot be read, names an image twice with different captions, or names none of the
            pictures.
    """
    if source == SIDECAR:
        return tuple(replace(task, caption=_sidecar(task.source)) for task in tasks)
    file = Path(source)
    by_path: dict[str, str] = {}
    by_name: dict[str, set[str]] = {}
    for image, caption in _entries(file):
        for path in {os.path.realpath(file.parent / image), os.path.realpath(image)}:
            if by_path.setdefault(path, caption) != caption:
                raise InvalidInputError(f"{file}: {image} has two captions")
        if Path(image).name == image:
            by_name.setdefault(image, set()).add(caption)
    found = tuple(replace(task, caption=_caption(task, by_path, by_name)) for task in tasks)
    if found and all(task.caption is None for task in found):
        raise InvalidInputError(f"{file}: none of the pictures is named in this file")
    return found


def _caption(task: Task, by_path: Mapping[str, str], by_name: Mapping[str, set[str]]) -> str | None:
    if (exact := by_path.get(os.path.realpath(task.source))) is not None:
        return exact
    return next(iter(by_name.get(task.source.name, ())), None)


def _sidecar(picture: Path) -> str | None:
    file = picture.with_suffix(f".{SIDECAR}")
    try:
        return " ".join(file.read_text(encoding="utf-8").split()) or None if file.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file}: this caption cannot be read ({error})") from error


def _entries(file: Path) -> Iterable[tuple[str, str]]:
    try:
        text = file.read_text(encoding="utf-8")
        if text.lstrip().startswith("["):
            rows: list[Any] = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{file}: the captions cannot be read ({error})") from error
    for number, row in enumerate(rows, 1):
        entry = (row.get("image"), row.get("caption")) if isinstance(row, dict) else (None, None)
        if not all(isinstance(value, str) for value in entry):
            raise InvalidInputError(f"{file}: entry {number} is no object with the texts image and caption")
        yield entry  # type: ignore[misc]
