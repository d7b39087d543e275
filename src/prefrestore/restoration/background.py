"""Enlarge what is not a face with a model the user names: anything that spandrel can load."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from prefrestore.errors import InvalidInputError, MissingDependencyError, WeightsError
from prefrestore.files.fingerprints import file_hash

if TYPE_CHECKING:
    import torch

TILE = 256  # px of the input
OVERLAP = 16  # px on each side of a tile that are computed and thrown away, because a tile's rim lacks context


class Background:
    """A super-resolution model as ``RestoreOptions.background`` wants it: works in tiles, at any factor.

    ``model``: H x W x 3 in, ``scale`` times as much out: a callable on B x 3 x H x W tensors in 0..1. The
    pixels are enlarged by the model's own factor and then resized to the factor asked for.
    """

    def __init__(
        self,
        model: Any,
        *,
        scale: int,
        name: str,
        sha256: str | None = None,
        device: torch.device | str = "cpu",
        tile: int = TILE,
    ) -> None:
        if tile < 8:
            raise InvalidInputError(f"tile is 8 px or more, not {tile}")
        self.model = model
        self.scale = scale
        self.name = name
        self.sha256 = sha256
        self.device = device
        self.tile = tile

    def __call__(self, pixels: NDArray[Any], factor: int) -> NDArray[Any]:
        """H x W x 3 (uint8 or uint16, RGB) -> the same type, H * factor x W * factor x 3."""
        height, width = pixels.shape[:2]
        out = np.empty((height * factor, width * factor, 3), dtype=pixels.dtype)
        levels = np.iinfo(pixels.dtype).max
        for y0 in range(0, height, self.tile):
            for x0 in range(0, width, self.tile):
                y1, x1 = min(y0 + self.tile, height), min(x0 + self.tile, width)
                top, left = max(y0 - OVERLAP, 0), max(x0 - OVERLAP, 0)
                bottom, right = min(y1 + OVERLAP, height), min(x1 + OVERLAP, width)
                tile = pixels[top:bottom, left:right].astype(np.float32) / np.float32(levels)
                drawn = self._enlarge(tile)
                size = ((right - left) * factor, (bottom - top) * factor)
                if drawn.shape[1::-1] != size:
                    kind = cv2.INTER_AREA if drawn.shape[1] > size[0] else cv2.INTER_LANCZOS4
                    drawn = cv2.resize(drawn, size, interpolation=kind)
                inner = drawn[(y0 - top) * factor : (y1 - top) * factor, (x0 - left) * factor : (x1 - left) * factor]
                coded = np.round(np.clip(inner, 0, 1) * levels).astype(pixels.dtype)
                out[y0 * factor : y1 * factor, x0 * factor : x1 * factor] = coded
        return out

    def _enlarge(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        values = torch.from_numpy(np.ascontiguousarray(tile.transpose(2, 0, 1)))[None].to(self.device)
        with torch.inference_mode():
            drawn = self.model(values).float().cpu()[0].numpy().transpose(1, 2, 0)
        expected = (tile.shape[0] * self.scale, tile.shape[1] * self.scale, 3)
        if drawn.shape != expected:
            raise InvalidInputError(f"{self.name} made {drawn.shape} of {tile.shape}, not {expected}")
        return np.ascontiguousarray(drawn)


def load_background(path: str | Path, *, device: torch.device | str = "cpu", tile: int = TILE) -> Background:
    """Load an image-to-image model (RGB, any factor) with spandrel, which finds out its architecture.

    Raises MissingDependencyError without spandrel (which needs torchvision), WeightsError, naming the file,
    if it cannot be read or is no RGB image model. A pickle is read by spandrel's restricted loader, never
    executed.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no background model {path}")
    try:
        import spandrel
    except ImportError as error:
        raise MissingDependencyError(
            f"a background model needs spandrel, which cannot be imported ({error}): "
            "pip install 'prefrestore[background]'"
        ) from error
    from safetensors import SafetensorError

    try:
        model = spandrel.ModelLoader(device="cpu").load_from_file(path)
    except (OSError, ValueError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise WeightsError(f"{path} is not a model that spandrel can read ({error})") from error
    except spandrel.UnsupportedModelError as error:
        raise WeightsError(f"{path} is of an architecture that spandrel does not know") from error
    channels = (model.input_channels, model.output_channels)
    if not isinstance(model, spandrel.ImageModelDescriptor) or channels != (3, 3):
        raise WeightsError(f"{path} is no model from one RGB picture to another")
    model.to(device).eval()
    digest = file_hash(path)
    return Background(model, scale=model.scale, name=path.name, sha256=digest, device=device, tile=tile)
