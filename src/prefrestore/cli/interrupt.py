"""Ctrl-C: once, and what is in hand is finished; twice, and everything stops at once, with nothing half there."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130


@contextmanager
def told_interrupts() -> Iterator[None]:
    """While the block runs, the first interrupt raises KeyboardInterrupt and says so; the second ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    count = 0

    def interrupted(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count == 1:
            _say("interrupted: the photos in hand are finished first; once more to stop at once")
            raise KeyboardInterrupt
        from prefrestore.files.atomic import remove_parts

        remove_parts()
        _say("stopped")
        os._exit(INTERRUPTED)

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        # After an interrupt Python still waits for threads at its end: the second one must work there, too.
        if not count:
            signal.signal(signal.SIGINT, before)


def _say(text: str) -> None:
    # Not through print: the handler may run in the middle of one.
    os.write(2, f"{text}\n".encode(sys.stderr.encoding or "utf-8", "replace"))
