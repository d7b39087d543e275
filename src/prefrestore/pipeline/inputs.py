"""What the pipeline accepts, turned into tensors (faces of any kind, one generator a face), and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from prefrestore.errors import InvalidInputError

ImageInput = Image.Image | np.ndarray | Tensor | Sequence[Image.Image | np.ndarray]


@dataclass
class RestorationOutput(BaseOutput):
    """images: what ``output_type`` asked for, ``num_images_per_prompt`` in a row for each face."""

    images: Any


def prepare_faces(image: ImageInput, size: int) -> Tensor:
    """Faces -> (B,3,size,size) float32 in [-1,1], on the CPU or the tensor's device.

    Args:
        image: one face or several: PIL images, (H,W,3) arrays (uint8, or float in [0,1]), or a tensor (B,3,H,W) in
            [-1,1]; other sizes are resized.

    Raises:
        InvalidInputError: no face, or an array of another shape.
    """
    if isinstance(image, Tensor):
        if image.ndim != 4 or image.shape[1] != 3:
            raise InvalidInputError(f"a tensor of faces is B,3,H,W, not {tuple(image.shape)}")
        return _resized(image.float(), size).clamp(-1, 1)
    faces = list(image) if isinstance(image, (list, tuple)) else [image]
    if not faces:
        raise InvalidInputError("there is no face to restore")
    rows = []
    for face in faces:
        array = np.asarray(face.convert("RGB")) if isinstance(face, Image.Image) else np.asarray(face)
        if array.ndim != 3 or array.shape[2] != 3:
            raise InvalidInputError(f"a face is an H,W,3 array or a PIL image, not an array of {array.shape}")
        values = torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1)[None]
        values = values / 127.5 - 1 if array.dtype == np.uint8 else values * 2 - 1
        rows.append(_resized(values, size).clamp(-1, 1))
    return torch.cat(rows)


def _resized(images: Tensor, size: int) -> Tensor:
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bicubic", antialias=True)


def one_prompt_each(prompt: str | Sequence[str | None] | None, count: int) -> list[str | None]:
    """``count`` prompts: those given, or the one given for all. Raises InvalidInputError for another number."""
    prompts = [prompt] * count if prompt is None or isinstance(prompt, str) else list(prompt)
    if len(prompts) != count:
        raise InvalidInputError(f"{count} faces came with {len(prompts)} prompts")
    return prompts


def one_generator_each(
    generator: torch.Generator | Sequence[torch.Generator] | None, count: int
) -> list[torch.Generator]:
    """``count`` generators: those given, the one given for all, or one of seed 0 for all.

    Raises:
        InvalidInputError: another number of generators than faces.
    """
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    if isinstance(generator, torch.Generator):
        return [generator] * count
    if len(generator) != count:
        raise InvalidInputError(f"{count} faces came with {len(generator)} generators")
    return list(generator)


def as_output(images: Tensor, output_type: str) -> list[Image.Image] | np.ndarray | Tensor:
    """Images (B,3,H,W) in [0,1] as ``pt`` (themselves), ``np`` (B,H,W,3) or ``pil``."""
    if output_type == "pt":
        return images
    array = images.permute(0, 2, 3, 1).numpy()
    if output_type == "np":
        return array
    return [Image.fromarray(face) for face in (array * 255).round().astype(np.uint8)]
