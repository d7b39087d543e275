"""Photos with the real detector and identity network, and a stand-in for the pipeline."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from prefrestore.pictures.read import read_photo
from prefrestore.restoration.options import RestoreOptions
from prefrestore.restoration.photo import restore_photo


class Pipeline:
    """Called like PrefRestorePipeline: changes each face by a function."""

    face_size = 64
    config = SimpleNamespace(preset="fake", num_inference_steps=4, fidelity=0.0, guidance_scale=1.0)
    weight_hashes = {"model.safetensors": "ab" * 32}

    def __init__(self, change: Callable[[Any], Any]) -> None:
        self.change = change

    def __call__(self, images: Any, **options: Any) -> Any:
        return SimpleNamespace(images=np.stack([self.change(face) for face in images]).astype(np.float32))


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (1, 500, 3)])
def test_tiny_pictures_with_the_real_detector(shape: tuple[int, ...]) -> None:
    pixels = np.full(shape, 90, np.uint8)
    result = restore_photo(pixels, Pipeline(lambda face: face), options=RestoreOptions(scale=2))
    assert result.faces == () and result.image.shape[:2] == (2 * shape[0], 2 * shape[1])
    assert (result.image == 90).all() and result.compare().ndim == 3


def test_another_person_is_warned_of() -> None:
    data = pytest.importorskip("skimage.data")
    photo = np.ascontiguousarray(data.astronaut())
    noise = np.random.default_rng(0).random((64, 64, 3))
    loose = RestoreOptions(faces=[0], keep_likeness=False)
    other = restore_photo(photo, Pipeline(lambda face: noise), options=loose)
    assert "same person" in other.warnings[0] and other.faces[0].strength == 1
    kept = restore_photo(photo, Pipeline(lambda face: noise), options=RestoreOptions(faces=[0]))
    assert kept.faces[0].rule == "likeness" and kept.faces[0].strength < 1
    assert (kept.faces[0].similarity or 1) > (other.faces[0].similarity or 0)
    same = restore_photo(photo, Pipeline(lambda face: face), options=RestoreOptions(faces=[0]))
    assert same.warnings == () or "same person" not in same.warnings[0]
    assert (same.faces[0].similarity or 0) > 0.95


def test_group_photos_have_no_seams(shared_data: Path) -> None:
    photo = read_photo(shared_data / "photos" / "steps.jpg")
    result = restore_photo(photo, Pipeline(lambda face: face + np.array((20, -10, 15)) / 255))
    assert len(result.faces) == 42
    difference = result.image.astype(int) - photo.pixels
    changed = np.abs(difference).max(axis=2) > 0
    assert np.abs(difference.mean(axis=(0, 1), where=changed[..., None])).max() < 1
