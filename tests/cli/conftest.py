"""Pictures with real faces, and the command line in this process."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from prefrestore.cli import app
from prefrestore.errors import PrefRestoreError
from prefrestore.models.adapter import add_adapter, save_adapter
from prefrestore.pipeline.build import load_preset_pipeline


@pytest.fixture(scope="session")
def portrait() -> NDArray[np.uint8]:
    """192 x 192 RGB with one blurred face of 45 px."""
    data = pytest.importorskip("skimage.data")
    whole = Image.fromarray(data.astronaut()).crop((96, 0, 352, 256))
    return np.asarray(whole.resize((48, 48), Image.Resampling.BOX).resize((192, 192), Image.Resampling.BICUBIC))


@pytest.fixture
def photo(portrait: NDArray[np.uint8], tmp_path: Path) -> Path:
    """The portrait as a file."""
    path = tmp_path / "in" / "aunt.png"
    path.parent.mkdir()
    Image.fromarray(portrait).save(path)
    return path


class Ran:
    """What a command did: its exit status and everything it printed."""

    def __init__(self, code: int, text: str) -> None:
        self.code, self.text = code, text


@pytest.fixture(scope="session")
def prefrestore() -> Callable[[Sequence[str | Path]], Ran]:
    """Run the command line as ``main`` does."""

    def run(arguments: Sequence[str | Path]) -> Ran:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if isinstance(result.exception, PrefRestoreError):
            return Ran(1, result.output + f"error: {result.exception}")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.output)

    return run


@pytest.fixture(scope="session")
def restore(prefrestore: Callable[[Sequence[str | Path]], Ran]) -> Callable[..., Ran]:
    """``prefrestore restore`` with the tiny random model."""

    def run(*arguments: str | Path) -> Ran:
        return prefrestore(["restore", "--preset", "tiny", "--device", "cpu", *arguments])

    return run


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """gt, mild and severe of three pictures, 128 px."""
    for level, blur in (("gt", 0), ("mild", 2), ("severe", 5)):
        (tmp_path / "bench" / level).mkdir(parents=True)
        for number in range(3):
            values = np.random.default_rng(number).normal(size=(128, 128, 3))
            values = cv2.GaussianBlur(values, (0, 0), 3 + blur) * 400 + 128
            Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(tmp_path / "bench" / level / f"{number}&.png")
    return tmp_path / "bench"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the tiny denoiser that changes something."""
    transformer = load_preset_pipeline("tiny").transformer
    add_adapter(transformer, "new", rank=2, alpha=4)
    for key, value in transformer.named_parameters():
        if ".new." in key:
            torch.nn.init.normal_(value, std=0.5, generator=torch.Generator().manual_seed(0))
    folder = tmp_path_factory.mktemp("adapter")
    save_adapter(transformer, "new", folder, torch.float32)
    return folder
