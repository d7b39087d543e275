"""The one cache folder on the user's machine: decoded faces, embeddings, and measuring weights."""

import os
from pathlib import Path

import platformdirs

from prefrestore.errors import WeightsError

FETCH_COMMAND = "python -m prefrestore.evaluation.fetch"


def cache_dir() -> Path:
    """The environment's ``PREFRESTORE_CACHE``, else the system's own place: ``~/.cache/prefrestore`` on Linux."""
    named = os.environ.get("PREFRESTORE_CACHE")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("prefrestore", appauthor=False)


def cached_file(name: str, advice: str = f"run `{FETCH_COMMAND}` once to fetch the measuring weights") -> Path:
    """The path of a cached file.

    Raises:
        WeightsError: it is not there; the message ends in ``advice``, how to get it.
    """
    path = cache_dir() / name
    if not path.is_file():
        raise WeightsError(f"{path} is missing: {advice}.")
    return path
