"""A seeded share of ``mutations.py``: damaged files are read or refused in one sentence, and nothing else."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def mutations() -> Any:
    spec = importlib.util.spec_from_file_location("mutations", Path(__file__).with_name("mutations.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_damaged_files_of_every_format(mutations: Any, tmp_path: Path) -> None:
    told: list[str] = []
    counts = mutations.run(210, 7, tmp_path, restore=False, tell=told.append)
    assert told == []
    total = sum(counts.values(), start=type(counts["png"])())
    assert total["read"] > 10 and total["refused"] > 50 and total.total() == 210


def test_whole_files_of_every_format_keep_their_pixels(mutations: Any, tmp_path: Path) -> None:
    for kind, contents in mutations.seeds().items():
        for content in contents:
            (tmp_path / f"x.{kind}").write_bytes(content)
            for ending in (".png", ".tif", ".bmp"):
                assert mutations.verdict(tmp_path / f"x.{kind}", tmp_path / f"out{ending}", None) == "read", kind


def test_a_changed_pixel_is_seen(mutations: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.png").write_bytes(mutations.seeds()["png"][0])
    whole = mutations.write_photo

    def spoilt(photo: Any, path: Path) -> Any:
        pixels = photo.pixels.copy()
        pixels[0, 0] ^= 1
        return whole(photo.with_pixels(pixels, photo.alpha), path)

    monkeypatch.setattr(mutations, "write_photo", spoilt)
    assert mutations.verdict(tmp_path / "x.png", tmp_path / "out.png", None) == "pixel changed in the file"
    monkeypatch.setattr(mutations, "read_photo", lambda *_, **__: np.zeros(1) / None)
    assert mutations.verdict(tmp_path / "x.png", tmp_path / "out.png", None).startswith("raised TypeError")
