"""What earlier runs left behind, known by their records: their files, and what they were made from and with."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefrestore.pictures.formats import WRITABLE_SUFFIXES

# Larger files are no records: they are not read to find out.
_LARGEST = 50_000_000
# Records that do not name their files are older; their names follow from the record's.
_BESIDE = ("_compare.png", ".uncertainty.png", "_faces")


@dataclass(frozen=True)
class EarlierFiles:
    """outputs: restored pictures. beside: pictures about them (before beside after, faces, heat maps)."""

    outputs: set[Path] = field(default_factory=set)
    beside: set[Path] = field(default_factory=set)


def read_record(path: Path) -> dict[str, Any] | None:
    """The record in a file; None for a file that is not there, cannot be read, or is no record of this package."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(found, dict) and isinstance(found.get("record"), int) and "prefrestore" in found
    return found if ours and isinstance(found.get("input"), dict) else None


def earlier_files(records: Iterable[Path]) -> EarlierFiles:
    """The files that these records (any ``*.json`` files, others are passed over) speak of; folders by their path."""
    found = EarlierFiles()
    for path in records:
        record = read_record(path)
        if record is None:
            continue
        files = record.get("files")
        if isinstance(files, dict):
            for kind, names in files.items():
                texts = [names] if isinstance(names, str) else names if isinstance(names, list) else []
                paths = {path.parent / name for name in texts if isinstance(name, str)}
                (found.outputs if kind == "output" else found.beside).update(paths)
        else:
            found.beside.update(path.with_name(path.stem + ending) for ending in _BESIDE)
            suffix = Path(str(record["input"].get("name"))).suffix
            kept = suffix if suffix.lower() in WRITABLE_SUFFIXES else ".png"
            found.outputs.update({path.with_name(path.stem), path.with_name(path.stem + kept)})
    return found
