"""Several restorations of one face, with the tiny pipeline."""

from typing import Any

import numpy as np
import pytest
import torch

from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.restoration.uncertainty.sampling import draw, moved, offsets


@pytest.fixture(scope="module")
def pipeline() -> Any:
    torch.set_num_threads(1)
    pipeline = load_preset_pipeline("tiny")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def faces(pipeline: Any, count: int) -> list[np.ndarray]:
    size = pipeline.face_size
    return list(np.random.default_rng(0).random((count, size, size, 3), dtype=np.float32))


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_the_first_samples_are_the_ordinary_call_s(pipeline: Any) -> None:
    two = faces(pipeline, 2)
    made = draw(pipeline, two, [generators(1, 2, 3), generators(4, 5, 6)], batch_size=3)
    plain = pipeline(two, generator=generators(1, 4), output_type="np").images
    assert (np.stack([made[0].images[0], made[1].images[0]]) == plain).all()
    assert all(one.views is None for one in made)
    for index, seed, sample in ((0, 3, 2), (1, 5, 1)):
        alone = pipeline([two[index]], generator=generators(seed), output_type="np").images[0]
        assert made[index].images[sample] == pytest.approx(alone, abs=1e-5)
        latents = torch.from_numpy(made[index].latents[sample : sample + 1])
        assert pipeline.decode(latents)[0].permute(1, 2, 0).numpy() == pytest.approx(alone, abs=1e-5)


def test_the_language_model_sees_a_face_once(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    encode = type(pipeline).encode_semantics

    def counted(self: Any, images: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        seen.append(len(images))
        return encode(self, images, *rest, **options)

    monkeypatch.setattr(type(pipeline), "encode_semantics", counted)
    draw(pipeline, faces(pipeline, 2), [generators(1, 2, 3)] * 2, views=True)
    assert seen == [2]


def test_views_are_the_moved_face_restored_and_moved_back(pipeline: Any) -> None:
    (face,) = faces(pipeline, 1)
    (made,) = draw(pipeline, [face], [generators(1, 2)], views=True)
    assert made.views is not None and (made.views[0] == made.images[0]).all()
    _, (x, y) = offsets(2, pipeline.face_size)
    told = pipeline.conditions(
        pipeline.prepare([moved(face, x, y)]), queries=pipeline.encode_semantics(pipeline.prepare([face]), [None])
    )
    noise = torch.randn((1, *told.lq_latents.shape[1:]), generator=generators(2)[0])
    expected = pipeline.decode(pipeline.sample(told, noise))[0].permute(1, 2, 0).numpy()
    assert made.views[1] == pytest.approx(moved(expected, -x, -y), abs=1e-5)
    assert not np.allclose(made.views[1], made.images[1])


def test_moving_and_moving_back_changes_the_border_only() -> None:
    face = np.random.default_rng(1).random((32, 32, 3))
    shifted = moved(face, 3, -2)
    assert (shifted[:30, 3:] == face[2:, :29]).all(), "3 px to the right, 2 px up"
    again = moved(shifted, -3, 2)
    assert again.shape == face.shape and (again[2:, :29] == face[2:, :29]).all()
    assert (moved(face, 0, 0) == face).all()


def test_the_ring_of_views() -> None:
    ring = offsets(4, 256)
    assert ring[0] == (0, 0) and len(set(ring)) == 4
    assert all(3.2 <= np.hypot(x, y) <= 4.8 for x, y in ring[1:])
    assert offsets(1, 256) == [(0, 0)]
    assert (0, 0) not in offsets(9, 32)[1:]
