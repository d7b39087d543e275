"""``prefrestore degrade``."""

from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from prefrestore.cli import app


def folder_of(tmp_path: Path, *names: str) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(path)
    return tmp_path / "in"


def test_pairs_are_written_and_counted(tmp_path: Path) -> None:
    source = folder_of(tmp_path, "a.png", "x/b.jpg")
    arguments = ["degrade", str(source), "-o", str(tmp_path / "out"), "--preset", "classic", "--size", "32"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "2 pairs, 0 there already, 0 failed" in result.output
    for kind in ("hq", "lq"):
        for name in ("a", "x/b"):
            with Image.open(tmp_path / "out" / kind / f"{name}.png") as image:
                assert min(image.size) == 32
    again = CliRunner().invoke(app, [*arguments, "--skip-existing"])
    assert "0 pairs, 2 there already, 0 failed" in again.output


def test_a_broken_picture_is_told_and_the_rest_is_done(tmp_path: Path) -> None:
    source = folder_of(tmp_path, "a.png", "b.png")
    (source / "a.png").write_bytes(b"no picture")
    result = CliRunner().invoke(app, ["degrade", str(source), "-o", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "1 pairs, 0 there already, 1 failed" in result.output
    assert "a.png" in result.output
