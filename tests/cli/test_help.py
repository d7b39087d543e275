"""The command line answers at once: nothing heavy is imported before a command needs it."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "cv2", "diffusers", "transformers", "numpy", "PIL")

PROGRAM = """
import sys
import prefrestore, prefrestore.cli
from prefrestore.cli import app
try:
    app(sys.argv[1:])
except SystemExit as stop:
    assert not stop.code, stop.code
print("HEAVY:", [name for name in {heavy!r} if name in sys.modules])
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["restore", "--help"],
        ["degrade", "--help"],
        ["train", "--help"],
        ["evaluate", "--help"],
        ["ablate", "--help"],
        ["info", "--help"],
        ["convert", "--help"],
        ["serve", "--help"],
        ["preference", "--help"],
        ["preference", "fit", "--help"],
    ],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = PROGRAM.format(heavy=HEAVY)
    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "HEAVY: []" in ran.stdout


def test_public_names_are_all_there_and_wrong_ones_are_not() -> None:
    import prefrestore

    for name in prefrestore.__all__:
        assert getattr(prefrestore, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = prefrestore.no_such_name
