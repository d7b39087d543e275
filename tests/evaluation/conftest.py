"""An evaluator that has no networks: what is missing must be blank on every machine."""

import sys
from pathlib import Path

import pytest


@pytest.fixture
def no_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No LPIPS weights and no dlib, whatever the machine has."""
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "empty"))
    monkeypatch.setitem(sys.modules, "dlib", None)
