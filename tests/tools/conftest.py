"""The bundle's programs lie outside the package: here they are found, and forgotten again."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools" / "bundle"


@pytest.fixture(scope="session", autouse=True)
def bundle_tools() -> Iterator[Path]:
    sys.path.insert(0, str(TOOLS))
    yield TOOLS
    sys.path.remove(str(TOOLS))
    for name in [path.stem for path in TOOLS.glob("*.py")]:
        sys.modules.pop(name, None)
