"""By what one run is told from another: hashes of files, fingerprints of settings, and what differs between two."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def file_hash(path: Path) -> str:
    """sha256 of a file, as hexadecimal text."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


FORMAT = 1
"""Raised when the same settings, data and weights come to mean something else to a training run."""


def digest(values: object) -> str:
    """sha256 of JSON values as hexadecimal text; the order of the keys does not matter."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def fingerprint(settings: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that differ where JSON values differ; the order of the keys does not matter."""
    return digest(dict(settings))[:16]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two settings of JSON values, half a sentence each: ``seed 0, now 9``; of hashes, the key.

    Mappings inside are compared by their own keys (``options.seed``); a key that is missing is like None.
    """
    told = []
    for key in sorted({*before, *now}):
        old, new = (json.loads(json.dumps(side.get(key))) for side in (before, now))
        if isinstance(old, dict) and isinstance(new, dict):
            told += [f"{key}.{text}" for text in differences(old, new)]
        elif old != new:
            told.append(key if _is_hash(old) or _is_hash(new) else f"{key} {_short(old)}, now {_short(new)}")
    return told


def first_differences(before: Mapping[str, Any], now: Mapping[str, Any], most: int = 3) -> str:
    """The first of `differences` as part of a sentence, and how many more there are; empty where there are none."""
    told = differences(before, now)
    return "; ".join(told[:most]) + (f" and {len(told) - most} more" if len(told) > most else "")


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:36]}..."


@dataclass(frozen=True, kw_only=True)
class InputFacts:
    """By what a changed input is told: size in bytes, time of change in ns, sha256; of what cannot be read, nothing."""

    size: int | None = None
    mtime_ns: int | None = None
    sha256: str | None = None

    @classmethod
    def of(cls, path: Path) -> InputFacts:
        """Read them from a file; all None when it cannot be read."""
        try:
            stat = path.stat()
            return cls(size=stat.st_size, mtime_ns=stat.st_mtime_ns, sha256=file_hash(path))
        except OSError:
            return cls()

    def still_hold(self, path: Path) -> bool:
        """Whether the file is as it was. It is read only when its size is the same and its time is not."""
        try:
            stat = path.stat()
        except OSError:
            return False
        if stat.st_size != self.size:
            return False
        return stat.st_mtime_ns == self.mtime_ns or file_hash(path) == self.sha256
