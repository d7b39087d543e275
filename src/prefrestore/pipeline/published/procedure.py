"""What the published inference does where this package does better: its sampling, and its views of a degraded face.

Beside this it decodes greedily over the whole vocabulary, see `prefrestore.models.semantic.decoding`. Its noise comes
from a generator that cannot be given; here it is the caller's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prefrestore.errors import InvalidInputError
from prefrestore.pipeline.inputs import ImageInput

SAMPLING = (30, 2.0, 0.0, "euler")
"""Steps, guidance scale, fidelity and solver, as `PrefRestorePipeline.sample` takes them."""


def sampling(reference: bool, *given: Any) -> tuple[Any, Any, Any, Any]:
    """What was given, in the order of `SAMPLING`, which stands for what is None when ``reference`` is asked for."""
    values = [own if value is None and reference else value for value, own in zip(given, SAMPLING, strict=True)]
    steps, guidance_scale, fidelity, solver = values
    return steps, guidance_scale, fidelity, solver


def semantic_view(face: Image.Image, side: int) -> Tensor:
    """SigLIP's preprocessing: bicubic to side x side, mean 0.5, standard deviation 0.5 -> (3,side,side)."""
    return _tensor(face.resize((side, side), Image.Resampling.BICUBIC))


def texture_view(face: Image.Image, side: int) -> Tensor:
    """Bilinear, antialiased, until the shorter side is ``side``; then the middle square -> (3,side,side) in [-1,1]."""
    width, height = face.size
    short = min(width, height)
    # The longer side is cut to whole pixels and the crop's corner rounded, as torchvision does it.
    size = (side * width // short, side * height // short)
    left, top = (round((length - side) / 2) for length in size)
    if size != face.size:
        face = face.resize(size, Image.Resampling.BILINEAR)
    return _tensor(face.crop((left, top, left + side, top + side)))


def views(image: ImageInput, semantic_side: int, texture_side: int) -> tuple[Tensor, Tensor]:
    """Faces -> (B,3,semantic_side,semantic_side) and (B,3,texture_side,texture_side) in [-1,1].

    Raises:
        InvalidInputError: the faces are not PIL images or uint8 arrays (H,W,3).
    """
    faces = [_picture(face) for face in (image if isinstance(image, (list, tuple)) else [image])]
    if not faces:
        raise InvalidInputError("there is no face to restore")
    semantic = torch.stack([semantic_view(face, semantic_side) for face in faces])
    return semantic, torch.stack([texture_view(face, texture_side) for face in faces])


def _picture(face: object) -> Image.Image:
    if isinstance(face, Image.Image):
        return face.convert("RGB")
    if isinstance(face, np.ndarray) and face.dtype == np.uint8 and face.ndim == 3 and face.shape[2] == 3:
        return Image.fromarray(face)
    raise InvalidInputError("the reference procedure reads PIL images or uint8 arrays of H,W,3")


def _tensor(face: Image.Image) -> Tensor:
    values = torch.from_numpy(np.asarray(face, dtype=np.float32).copy()).permute(2, 0, 1)
    return (values / 255 - 0.5) / 0.5
