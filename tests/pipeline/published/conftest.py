"""One tiny checkpoint in the published format, written once; tests copy it before they damage it."""

import shutil
import sys
from pathlib import Path

import pytest

# The writer is shared by test modules and benchmarks and is no test itself.
sys.path.insert(0, str(Path(__file__).parent))

from tiny_checkpoint import Tiny, write_all


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return write_all(tmp_path_factory.mktemp("published"))


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of the assembled model that a test may change."""
    return Path(shutil.copytree(tiny.assembled, tmp_path / "assembled"))
