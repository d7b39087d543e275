"""Where measuring weights live on the user's machine: they are never part of the package."""

import os
from pathlib import Path

from prefrestore.errors import WeightsError

FETCH_COMMAND = "python -m prefrestore.evaluation.fetch"


def cache_dir() -> Path:
    """The folder of converted weights: the environment's `PREFRESTORE_CACHE`, else `~/.cache/prefrestore`."""
    named = os.environ.get("PREFRESTORE_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "prefrestore"


def cached_file(name: str, advice: str = f"run `{FETCH_COMMAND}` once to fetch the measuring weights") -> Path:
    """The path of a cached file.

    Raises:
        WeightsError: it is not there; the message ends in ``advice``, how to get it.
    """
    path = cache_dir() / name
    if not path.is_file():
        raise WeightsError(f"{path} is missing: {advice}.")
    return path
