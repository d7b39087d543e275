"""The weights that come with the package, and the hashes by which every copy of them is checked."""

from __future__ import annotations

import json
from pathlib import Path

from prefrestore.errors import WeightsError
from prefrestore.files.fingerprints import file_hash

HASH_FILE = "hashes.json"
BUNDLED = Path(__file__).parents[1] / "weights"
"""Weights that lie inside the package."""


def bundled_folder(preset: str) -> Path:
    """Where the weights of a preset lie inside the package.

    Raises:
        WeightsError: this preset has no bundled weights.
    """
    folder = BUNDLED / preset
    if not (folder / "model_index.json").is_file():
        raise WeightsError(f"the package holds no weights for the preset '{preset}': name a folder with --model")
    return folder


def folder_hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file under a folder but the record itself, by path relative to it.

    Raises:
        WeightsError: there is no such folder.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder}: there is no such folder of weights")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != HASH_FILE)
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


def write_hashes(folder: Path) -> None:
    """Record the hashes of a finished pipeline folder in ``hashes.json``."""
    (folder / HASH_FILE).write_text(json.dumps(folder_hashes(folder), indent=2) + "\n")


def verify(folder: Path) -> dict[str, str]:
    """Compare every recorded file with its hash; returns the record.

    Raises:
        WeightsError: the record is missing or unreadable, or a file is missing or differs from it.
    """
    try:
        record: dict[str, str] = json.loads((folder / HASH_FILE).read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder / HASH_FILE}: the record of hashes cannot be read ({error})") from error
    for name, expected in record.items():
        path = folder / name
        if not path.is_file():
            raise WeightsError(f"{path}: this weight file is missing")
        if file_hash(path) != expected:
            raise WeightsError(f"{path}: this weight file is corrupt (its sha256 differs from the record)")
    return record
