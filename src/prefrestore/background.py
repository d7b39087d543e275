"""Surroundings drawn by a model that the user names: any super-resolution file that spandrel can load."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrestore.errors import InvalidInputError, MissingDependencyError, WeightsError

TILE = 256  # px of input in one piece: a few hundred MB for the common 4x networks
OVERLAP = 16  # px at every side of a piece that are drawn and thrown away, so that no seam shows


class BackgroundModel:
    """An `Upscaler` (see `prefrestore.options`) around a super-resolution network; threads take turns.

    Args:
        network: callable, (1,3,h,w) float32 in [0,1] -> (1,3,h*factor,w*factor); a spandrel model descriptor
            is one.
        factor: by which it enlarges.
        name: for the record.
        device: where the network is.
    """

    def __init__(self, network: Any, factor: int, name: str, device: str = "cpu") -> None:
        self.network, self.factor, self.name, self.device = network, factor, name, device
        self._lock = threading.Lock()

    def __call__(self, pixels: NDArray[Any], scale: int) -> NDArray[Any]:
        """H x W x 3 (uint8 or uint16) -> the same type, H*scale x W*scale x 3.

        Where the network's own factor is another one, its picture is resized: area averaging down, Lanczos
        up.
        """
        import cv2

        with self._lock:
            drawn = self._tiles(pixels)
        height, width = pixels.shape[0] * scale, pixels.shape[1] * scale
        if drawn.shape[:2] != (height, width):
            kind = cv2.INTER_AREA if scale < self.factor else cv2.INTER_LANCZOS4
            drawn = cv2.resize(drawn, (width, height), interpolation=kind)
        return drawn

    def _tiles(self, pixels: NDArray[Any]) -> NDArray[Any]:
        import torch

        height, width = pixels.shape[:2]
        top = np.iinfo(pixels.dtype).max
        drawn = np.empty((height * self.factor, width * self.factor, 3), pixels.dtype)
        for y in range(0, height, TILE):
            for x in range(0, width, TILE):
                # The piece with its overlap, as far as the picture goes.
                y0, x0 = max(0, y - OVERLAP), max(0, x - OVERLAP)
                y1, x1 = min(height, y + TILE), min(width, x + TILE)
                piece = pixels[y0 : y1 + OVERLAP, x0 : x1 + OVERLAP].astype(np.float32) / np.float32(top)
                with torch.inference_mode():
                    image = torch.from_numpy(piece).permute(2, 0, 1)[None].to(self.device)
                    values = self.network(image)[0].float().permute(1, 2, 0).cpu().numpy()
                if values.shape != (piece.shape[0] * self.factor, piece.shape[1] * self.factor, 3):
                    raise WeightsError(
                        f"{self.name}: the network returned {values.shape}, not an RGB picture enlarged"
                    )
                inner = values[(y - y0) * self.factor :, (x - x0) * self.factor :]
                inner = inner[: (y1 - y) * self.factor, : (x1 - x) * self.factor]
                rounded = np.round(np.clip(inner, 0, 1) * top).astype(pixels.dtype)
                drawn[y * self.factor : y1 * self.factor, x * self.factor : x1 * self.factor] = rounded
        return drawn


def load_background(path: Path, device: str = "cpu") -> BackgroundModel:
    """Read a super-resolution model through spandrel (which reads pickles with a restricted unpickler).

    Raises MissingDependencyError without spandrel, WeightsError if the file cannot be read or holds no known
    network, InvalidInputError if the network is not one that enlarges or cleans RGB pictures.
    """
    try:
        from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError
    except ImportError as error:
        raise MissingDependencyError(
            "--background needs the package spandrel: pip install 'prefrestore[background]'"
        ) from error
    import pickle

    from safetensors import SafetensorError

    if not path.is_file():
        raise WeightsError(f"{path}: there is no such background model")
    try:
        model = ModelLoader(device=device).load_from_file(path)
    except UnsupportedModelError as error:
        raise WeightsError(f"{path}: spandrel knows no network with these weights") from error
    except (
        OSError,
        ValueError,
        RuntimeError,
        KeyError,
        pickle.UnpicklingError,
        SafetensorError,
        EOFError,
    ) as error:
        raise WeightsError(
            f"{path}: this background model cannot be read ({' '.join(str(error).split())})"
        ) from error
    if not isinstance(model, ImageModelDescriptor) or (model.input_channels, model.output_channels) != (3, 3):
        raise InvalidInputError(f"{path}: a background model takes an RGB picture and returns one")
    return BackgroundModel(model.eval(), model.scale, path.name, device)
