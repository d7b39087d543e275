"""Small pictures, and an evaluator that has no networks: what is missing must be blank on every machine."""

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

SIDE = 128


@pytest.fixture
def no_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No LPIPS weights and no dlib, whatever the machine has."""
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "empty"))
    monkeypatch.setitem(sys.modules, "dlib", None)


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder of smooth random pictures; blur makes them degraded."""

    def make(name: str, *pictures: str, blur: float = 0) -> Path:
        for number, picture in enumerate(pictures):
            rng = np.random.default_rng(number)
            values = cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE, 3)), (0, 0), 3) * 400 + 128
            if blur:
                values = cv2.GaussianBlur(values, (0, 0), blur)
            path = tmp_path / name / picture
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(path)
        return tmp_path / name

    return make
