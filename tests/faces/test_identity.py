from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefrestore.faces import align, identity


@pytest.fixture(scope="module")
def embedder() -> Any:
    return identity.IdentityEmbedder()


def test_unit_vector_and_determinism(embedder: Any) -> None:
    face = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    one, two = embedder.embed(face), embedder.embed(face)
    assert one.shape == (128,) and one.dtype == np.float32
    np.testing.assert_array_equal(one, two)
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-5)
    assert identity.cosine(one, two) == pytest.approx(1, abs=1e-5)


def test_the_same_face_at_another_place_and_size(embedder: Any) -> None:
    astronaut = pytest.importorskip("skimage.data").astronaut()
    points = np.array([[197, 113], [240, 113], [220, 138], [201, 157], [241, 156.0]])
    matrix = align.estimate_similarity(points, align.ffhq_template(256))
    crop = align.crop_face(astronaut, matrix, 256)
    whole = embedder.embed(np.ascontiguousarray(astronaut), points)
    assert identity.cosine(whole, embedder.embed(crop, align.transform_points(matrix, points))) > 0.95
    assert identity.cosine(whole, embedder.embed(crop)) > 0.8


def test_people_are_told_apart(embedder: Any, shared_data: Path) -> None:
    from PIL import Image

    folder = shared_data / "bench"
    names = sorted(path.name for path in (folder / "gt").iterdir())[:24]
    vectors = {
        level: np.array([embedder.embed(np.array(Image.open(folder / level / name).convert("RGB"))) for name in names])
        for level in ("gt", "mild")
    }
    table = vectors["gt"] @ vectors["mild"].T
    same = np.diag(table)
    different = table[~np.eye(len(names), dtype=bool)]
    assert np.median(same) > 0.6 and np.median(different) < 0.2
