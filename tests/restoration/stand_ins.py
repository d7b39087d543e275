"""What stands in for a pipeline and a detector: something plain is done to each face, and the faces are known."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from prefrestore.faces import align, blend
from prefrestore.faces.detect import Face

SIZE = 64


class Pipeline:
    """Called like PrefRestorePipeline; keeps what it was asked."""

    face_size = SIZE
    config = SimpleNamespace(preset="fake", num_inference_steps=4, fidelity=0.0, guidance_scale=1.0)
    weight_hashes = {"model.safetensors": "ab" * 32}

    def __init__(self, change: Callable[[Any], Any]) -> None:
        self.change = change
        self.calls: list[dict[str, Any]] = []

    def __call__(self, images: Any, **options: Any) -> Any:
        self.calls.append({"images": images, **options})
        faces = [self.change(face) for face in images]
        return SimpleNamespace(images=np.stack(faces).clip(0, 1).astype(np.float32))


class Noise(Pipeline):
    """Adds noise from each face's own generator, as the flow does."""

    def __init__(self) -> None:
        super().__init__(lambda face: face)

    def __call__(self, images: Any, **options: Any) -> Any:
        import torch

        made = super().__call__(images, **options)
        for face, generator in zip(made.images, options["generator"], strict=True):
            face += 0.1 * torch.randn(face.shape, generator=generator).numpy()
        return made


class Detector:
    """Finds the same faces in any picture."""

    def __init__(self, *faces: Face) -> None:
        self.faces = list(faces)

    def detect(self, rgb: Any) -> list[Face]:
        assert rgb.dtype == np.uint8 and rgb.ndim == 3
        return self.faces


def face_at(x: float, y: float, width: float, angle: float = 0.0) -> Face:
    points = align.ffhq_template(512) - (256, 300)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    box = (x - width / 2, y - width * 0.6, width, width * 1.2)
    return Face(box, points @ turn * (width / 260) + (x, y), 0.9)


def scene(height: int = 160, width: int = 240, channels: int = 3, dtype: Any = np.uint8) -> Any:
    rng = np.random.default_rng(7)
    smooth = cv2.GaussianBlur(rng.random((height, width, 3), dtype=np.float32), (0, 0), 4)
    smooth = 0.1 + 0.8 * (smooth - smooth.min()) / np.ptp(smooth)
    pixels = np.round(smooth * np.iinfo(dtype).max).astype(dtype)
    return pixels if channels == 3 else np.ascontiguousarray(pixels[..., 0])


def sharpen(face: Any) -> Any:
    return face + 2 * (face - cv2.GaussianBlur(face, (0, 0), 2))


TWO = Detector(face_at(70, 80, 40), face_at(170, 85, 50, 0.4))


def touched(photo: Any, faces: list[Face], scale: int = 1) -> Any:
    """Where any mask is above 0."""
    mask = blend.face_mask(SIZE)
    patches = []
    for face in faces:
        matrix = align.estimate_similarity(face.points, align.ffhq_template(SIZE))
        patches.append(blend.Patch(mask, align.rescale_output(matrix, scale), mask))
    return blend.coverage(patches, photo.shape[1] * scale, photo.shape[0] * scale) > 0
