"""Surroundings by a named model: pieces without seams, sizes, errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.restoration.background import TILE, Background, load_background


def smoothing(image: Tensor) -> Tensor:
    """A network that sees 4 px around each pixel and doubles the picture."""
    padded = F.pad(image, (4, 4, 4, 4), mode="replicate")
    return F.interpolate(F.avg_pool2d(padded, 9, stride=1), scale_factor=2, mode="nearest")


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(40, 30), (TILE + 1, TILE - 1), (2 * TILE + 40, 20)])
def test_pieces_leave_no_seam(kind: type, size: tuple[int, int]) -> None:
    top = np.iinfo(kind).max
    pixels = np.random.default_rng(0).integers(0, top, (*size, 3)).astype(kind)
    drawn = Background(smoothing, scale=2, name="smoothing")(pixels, 2)
    whole = smoothing(torch.from_numpy(pixels.astype(np.float32) / top).permute(2, 0, 1)[None])
    expected = whole[0].permute(1, 2, 0).numpy() * top
    assert drawn.dtype == kind and drawn.shape == (2 * size[0], 2 * size[1], 3)
    assert np.abs(drawn - expected).max() <= (0.51 if kind is np.uint8 else 1.0)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_the_size_is_the_one_asked_for(scale: int) -> None:
    pixels = np.full((20, 24, 3), 77, np.uint8)
    drawn = Background(smoothing, scale=2, name="smoothing")(pixels, scale)
    assert drawn.shape == (20 * scale, 24 * scale, 3)
    assert (drawn == 77).all()


def test_a_network_of_another_kind_is_named() -> None:
    model = Background(lambda image: image[:, :1], scale=2, name="odd.pth")
    with pytest.raises(InvalidInputError, match=r"odd\.pth"):
        model(np.zeros((8, 8, 3), np.uint8), 2)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.pth"):
        load_background(tmp_path / "gone.pth")
