"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The measuring data beside the checkout, or a skip: a stranger's machine does not have it."""
    folder = Path(os.environ.get("PREFRESTORE_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no measuring data at {folder}")
    return folder
