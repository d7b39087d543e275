"""What Pillow warns of while it reads and writes, in place of lines on a user's terminal."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOCK = threading.RLock()
"""Warnings' filters and Pillow's limit are the whole process's: one thread at a time may be inside."""


@contextmanager
def warnings_heard() -> Iterator[list[warnings.WarningMessage]]:
    """The warnings that were raised inside so far; none of them is printed."""
    with LOCK, warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        yield heard
