"""What the benchmark of speed puts its clock around is still there: it has broken twice when code moved."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from prefrestore.pipeline.build import load_preset_pipeline

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="not a checkout")
def test_what_is_timed_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    spec = importlib.util.spec_from_file_location("speed_benchmark", BENCHMARKS / "speed.py")
    assert spec is not None and spec.loader is not None
    speed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(speed)
    told = speed.timed(load_preset_pipeline("tiny"), SimpleNamespace(detect=len))
    assert {stage for _, _, stage in told} <= set(speed.STAGES) and len(told) > 5
    for owner, name, stage in told:
        assert callable(getattr(owner, name)), stage
