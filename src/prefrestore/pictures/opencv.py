"""OpenCV without its chatter."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

_LOCK = threading.Lock()
_QUIET: list[int] = []
"""The log level that was found, once for each who is inside: the level is the whole process's."""


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Hold OpenCV's log at errors: version 5 warns at each new detector that its engine has no targets.

    May be entered by several threads at a time: the last one out gives the level back.
    """
    logging = cv2.utils.logging
    with _LOCK:
        _QUIET.append(_QUIET[0] if _QUIET else logging.getLogLevel())
        logging.setLogLevel(logging.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        with _LOCK:
            before = _QUIET.pop()
            if not _QUIET:
                logging.setLogLevel(before)
