"""The model's part of a photo: batches, noise, choices, and answers that cannot be used."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from stand_ins import TWO, Detector, Noise, Pipeline, face_at, scene, sharpen

from prefrestore.errors import PrefRestoreError
from prefrestore.restoration.photo import RestoreOptions, face_generator, restore_photo


def test_batches_do_not_matter() -> None:
    pixels = scene()
    many = Detector(*(face_at(30 + 25 * i, 60 + 10 * (i % 3), 24) for i in range(8)))
    images, sizes = [], []
    for batch in (1, 3, 8):
        pipeline = Noise()
        options = RestoreOptions(batch_size=batch, seed=5)
        images.append(restore_photo(pixels, pipeline, detector=many, options=options).image)
        sizes.append([len(call["images"]) for call in pipeline.calls])
    assert sizes == [[1] * 8, [3, 3, 2], [8]]
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[0], images[2])


def test_the_seed_and_the_number_of_the_face_make_the_noise() -> None:
    import torch

    draws = [torch.randn(4, generator=face_generator(*key)) for key in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert torch.equal(draws[0], draws[3])
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    pixels = scene()
    alone = restore_photo(pixels, Noise(), detector=TWO, options=RestoreOptions(faces=[1]))
    both = restore_photo(pixels, Noise(), detector=TWO)
    np.testing.assert_array_equal(alone.restored[0].after, both.restored[1].after)
    other = restore_photo(pixels, Noise(), detector=TWO, options=RestoreOptions(seed=1))
    assert (other.image != both.image).any()


def test_choices_reach_the_pipeline() -> None:
    pipeline = Pipeline(sharpen)
    options = RestoreOptions(prompt=["a", None], steps=9, fidelity=0.3, guidance_scale=1.5, batch_size=1)
    result = restore_photo(scene(), pipeline, detector=TWO, options=options)
    assert [call["prompt"] for call in pipeline.calls] == [["a"], [None]]
    assert {call["num_inference_steps"] for call in pipeline.calls} == {9}
    assert {call["fidelity"] for call in pipeline.calls} == {0.3}
    record = result.as_record()
    assert (record["steps"], record["fidelity"], record["guidance_scale"]) == (9, 0.3, 1.5)
    assert {"dtype", "solver"} <= record.keys()  # both change the bytes
    pipeline = Pipeline(sharpen)
    result = restore_photo(scene(), pipeline, detector=TWO, options=RestoreOptions(prompt="all"))
    assert pipeline.calls[0]["prompt"] == "all" and "fidelity" not in pipeline.calls[0]
    assert result.as_record()["steps"] == 4


def test_a_pipeline_that_returns_something_else() -> None:
    with pytest.raises(PrefRestoreError, match="shape"):
        restore_photo(scene(), Pipeline(lambda face: face[:32]), detector=TWO)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("faces", [None, (0,)])
def test_numbers_that_are_not_finite_fail_the_photo(value: float, faces: Any) -> None:
    def broken(face: Any) -> Any:
        spoilt = face.copy()
        spoilt[3, 4, 1] = value
        return spoilt

    class Raw(Pipeline):
        def __call__(self, images: Any, **options: Any) -> Any:
            return SimpleNamespace(images=np.stack([self.change(face) for face in images]).astype(np.float32))

    with pytest.raises(PrefRestoreError, match="face 0.*not finite"):
        restore_photo(scene(), Raw(broken), detector=TWO, options=RestoreOptions(faces=faces))
