"""Fixtures that every test may use."""

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The measuring data beside the checkout, or a skip: a stranger's machine does not have it."""
    folder = Path(os.environ.get("PREFRESTORE_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no measuring data at {folder}")
    return folder


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder of smooth random pictures; blur makes them degraded."""

    def make(name: str, *pictures: str, blur: float = 0) -> Path:
        for number, picture in enumerate(pictures):
            rng = np.random.default_rng(number)
            values = cv2.GaussianBlur(rng.normal(size=(128, 128, 3)), (0, 0), 3) * 400 + 128
            if blur:
                values = cv2.GaussianBlur(values, (0, 0), blur)
            path = tmp_path / name / picture
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(path)
        return tmp_path / name

    return make
