"""The wheel that users install: complete, and small enough to be uploaded."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 95_000_000  # bytes


def test_the_wheel_holds_the_whole_package_and_stays_small(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    ran = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < LARGEST
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("prefrestore/")}
    package = ROOT / "src"
    expected = {
        path.relative_to(package).as_posix()
        for path in (package / "prefrestore").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == expected
    assert {"prefrestore/py.typed", "prefrestore/pipeline/configs/compact.json"} <= inside
