"""What ``make demo`` runs, with the tiny model."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prefrestore.cli.demo import zoomed
from prefrestore.degrade.example import write_example


def test_the_demo_writes_its_pictures_and_says_where(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    Image.new("RGB", (40, 40)).save(tmp_path / "mine.png")
    command = [sys.executable, "-m", "prefrestore.cli.demo", "-o", str(tmp_path / "demo"), "--preset", "tiny"]
    command += [str(tmp_path / "mine.png"), str(tmp_path / "gone.png")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 1, ran.stderr
    assert "gone.png" in ran.stderr and "mine.png: no face was found" in ran.stderr
    assert f"look at {tmp_path / 'demo' / 'compare.png'}" in ran.stdout
    assert f"look at {tmp_path / 'demo' / 'photos' / 'mine_compare.png'}" in ran.stdout
    with Image.open(tmp_path / "demo/before.png") as before, Image.open(tmp_path / "demo/after.png") as after:
        assert before.size == (512, 512) and after.size == (1024, 1024)
        assert (np.asarray(before.resize(after.size)) != np.asarray(after)).any()
    with Image.open(tmp_path / "demo/compare.png") as both:
        assert both.size == (2 * 512 + 8, 1024)


def test_the_example_is_always_the_same_and_degraded(tmp_path: Path) -> None:
    data = pytest.importorskip("skimage.data")
    write_example(tmp_path / "a.png")
    write_example(tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as example:
        error = np.asarray(example).astype(float) - data.astronaut()
    psnr = 10 * np.log10(255**2 / np.mean(error**2))
    assert 18 < psnr < 27


@pytest.mark.parametrize("box", [(40, 40, 20, 20), (-10, -10, 20, 20), (90, 90, 60, 60), (0, 0, 500, 500)])
def test_a_zoom_has_its_size_and_shows_the_box(box: tuple[float, float, float, float]) -> None:
    picture = np.zeros((100, 120, 3), np.uint8)
    x, y, width, height = (int(value) for value in box)
    picture[max(y, 0) : y + height, max(x, 0) : x + width] = 200
    cut = zoomed(picture, box, 64)
    assert cut.shape == (64, 64, 3)
    assert cut.max() >= 200
