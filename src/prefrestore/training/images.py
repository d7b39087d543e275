"""Small conversions between stored faces and what the networks see, and the grids that training writes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_signed(faces: np.ndarray) -> Tensor:
    """Faces (N,H,W,3) uint8 -> (N,3,H,W) float32 in [-1,1]."""
    return torch.from_numpy(np.array(faces)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


def random_crops(faces: np.ndarray, index: np.ndarray, crop: int, rng: np.random.Generator) -> np.ndarray:
    """Random square crops of side ``crop`` (mirrored half the time) of faces[index] -> (B,crop,crop,3) uint8."""
    height, width = faces.shape[1:3]
    crops = []
    for i in index:
        top, left = rng.integers(height - crop + 1), rng.integers(width - crop + 1)
        piece = faces[i, top : top + crop, left : left + crop]
        crops.append(piece[:, ::-1] if rng.random() < 0.5 else piece)
    return np.stack(crops)


def grid(rows: Sequence[Tensor]) -> Image.Image:
    """Rows of images, each (N,3,H,W) in [-1,1], stacked under one another -> one RGB picture."""
    lines = [torch.cat(list(row.float().clamp(-1, 1).cpu()), dim=2) for row in rows]
    picture = torch.cat(lines, dim=1).add(1).mul(127.5).round().byte().permute(1, 2, 0)
    return Image.fromarray(picture.numpy())
