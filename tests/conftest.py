"""Fixtures that every test may use."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--slow`` runs the tests that take minutes, too."""
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked as slow, unless it was asked for."""
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes minutes: pytest --slow"))


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


class MadeUp:
    """Weights and pictures that look random and are the same everywhere: other programs gave numbers for them."""

    @staticmethod
    def scattered(count: int, start: int) -> NDArray[np.float64]:
        """Numbers in [-0.5,0.5)."""
        return np.modf(np.sin(np.arange(count) * 12.9898 + start) * 43758.5453)[0] / 2

    def weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict:
        """A tensor for each name, by the alphabet; counters of batch normalisation are left out."""
        import torch

        state = {}
        for number, (key, shape) in enumerate(sorted(shapes.items())):
            if key.endswith("num_batches_tracked"):
                continue
            values = self.scattered(int(np.prod(shape)), number).reshape(shape)
            if len(shape) > 1:
                values = values * 3 / np.sqrt(values[0].size)
            elif (key.endswith("weight") and ("bn" in key or "norm" in key)) or key.endswith("running_var"):
                values = values + 1
            state[key] = torch.from_numpy(values.astype(np.float32))
        return state

    @staticmethod
    def smooth(height: int, width: int) -> NDArray[np.uint8]:
        """A picture (H,W,3) of waves."""
        y, x = np.mgrid[:height, :width]
        waves = [np.sin(x / 9 + c) * np.cos(y / (7 + c)) + np.sin((x + y) / 3) / 3 for c in range(3)]
        return np.stack([127 + 90 * wave / 1.4 for wave in waves], -1).astype(np.uint8)


@pytest.fixture(scope="session")
def made_up() -> MadeUp:
    """Made-up weights and pictures."""
    return MadeUp()
