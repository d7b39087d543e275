"""What decides a run, as JSON: two runs are the same where all of it is equal, and a sentence says where it is not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

FORMAT = 1
"""Raised when the same settings, data and weights come to mean something else in the code."""

_SHOWN = 3


def digest(values: object) -> str:
    """sha256 of JSON values as hexadecimal text; the order of keys does not matter."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(held: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Where two identities differ, as ``name (held, now asked)``, sorted by name; hashes are named without their value.

    Nested mappings are compared entry by entry. Empty where the two are equal.
    """
    first, second = _flat(held), _flat(asked)
    found = []
    for name in sorted(first.keys() | second.keys()):
        old, new = first.get(name, "nothing"), second.get(name, "nothing")
        if old != new:
            shown = not (_is_hash(old) or _is_hash(new))
            found.append(f"{name} ({old}, now {new})" if shown else name)
    return found


def sentence(held: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """The first few of `differences` as part of a sentence."""
    found = differences(held, asked)
    more = len(found) - _SHOWN
    return ", ".join(found[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
