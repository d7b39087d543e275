"""Faces of several photos in one model call."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from prefrestore.errors import InvalidInputError
from prefrestore.restoration.gather import GatheringPipeline, GatheringRestorer
from prefrestore.restoration.options import RestoreOptions
from prefrestore.restoration.photo import face_generator


class Pipeline:
    """Adds each face's noise to it; ``calls`` holds what came in, by the faces' values."""

    face_size = 4
    config = SimpleNamespace(preset="fake")

    def __init__(self, poison: float | None = None) -> None:
        self.calls: list[list[float]] = []
        self.poison = poison
        self.inside = threading.Lock()

    def __call__(self, images: Any, *, generator: Any, prompt: str | None, output_type: str, **settings: Any) -> Any:
        assert self.inside.acquire(blocking=False), "two calls at once"
        self.calls.append([float(image[0, 0, 0]) for image in images])
        noise = [torch.randn(4, 4, 3, generator=source).numpy() for source in generator]
        self.inside.release()
        if self.poison in self.calls[-1]:
            raise ZeroDivisionError("poison")
        return SimpleNamespace(images=np.stack([image + n for image, n in zip(images, noise, strict=True)]))


def face(value: float) -> NDArray[np.float32]:
    return np.full((4, 4, 3), value, np.float32)


def expected(value: float, index: int = 0) -> NDArray[np.float32]:
    return face(value) + torch.randn(4, 4, 3, generator=face_generator(0, index)).numpy()


def together(pipeline: GatheringPipeline, photos: list[list[float]], **settings: Any) -> list[Any]:
    """The photos' faces, restored by as many threads; results, or the error of a photo."""
    ready = threading.Barrier(len(photos))

    def restore(values: list[float]) -> Any:
        with pipeline.photo():
            ready.wait(timeout=30)
            generators = [face_generator(0, index) for index in range(len(values))]
            try:
                return pipeline([face(value) for value in values], generator=generators, **settings).images
            except ZeroDivisionError as error:
                return error

    with ThreadPoolExecutor(len(photos)) as pool:
        return list(pool.map(restore, photos))


@pytest.mark.parametrize("size", [1, 3, 4, 16])
def test_every_call_is_full_and_every_face_gets_its_own_result(size: int) -> None:
    model = Pipeline()
    photos = [[1.0, 2.0, 3.0], [4.0], [5.0, 6.0]]
    results = together(GatheringPipeline(model, size), photos)
    assert {len(call) for call in model.calls} == {size}
    assert len(model.calls) == -(-6 // size), "no call is made before it is full or nobody else can come"
    for values, images in zip(photos, results, strict=True):
        for index, value in enumerate(values):
            np.testing.assert_array_equal(images[index], expected(value, index))


def test_one_photo_alone_does_not_wait() -> None:
    model = Pipeline()
    (images,) = together(GatheringPipeline(model, 4), [[7.0]])
    assert model.calls == [[7.0] * 4] and images.shape == (1, 4, 4, 3)


def test_a_photo_that_ends_without_faces_lets_the_others_go_on() -> None:
    model = Pipeline()
    pipeline = GatheringPipeline(model, 4)
    entered = threading.Event()

    def without() -> None:
        with pipeline.photo():
            entered.set()
            threading.Event().wait(0.05)

    thread = threading.Thread(target=without)
    thread.start()
    assert entered.wait(timeout=30)
    with pipeline.photo():
        pipeline([face(1)], generator=[face_generator(0, 0)])
    thread.join()
    assert len(model.calls) == 1


def test_an_error_hits_the_photo_that_brought_it_and_no_other() -> None:
    model = Pipeline(poison=2.0)
    good, bad, other = together(GatheringPipeline(model, 3), [[1.0], [2.0], [3.0]])
    assert isinstance(bad, ZeroDivisionError)
    np.testing.assert_array_equal(good[0], expected(1.0))
    np.testing.assert_array_equal(other[0], expected(3.0))


def test_prompts_are_not_mixed() -> None:
    model = Pipeline()
    pipeline = GatheringPipeline(model, 4)
    generators = [face_generator(0, index) for index in range(3)]
    pipeline([face(1), face(2), face(3)], generator=generators, prompt=["a", None, "a"])
    assert model.calls == [[1.0, 3.0, 3.0, 3.0], [2.0] * 4]


def test_what_it_is_not_made_for_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="1 face"):
        GatheringPipeline(Pipeline(), 0)
    with pytest.raises(InvalidInputError, match="arrays"):
        GatheringPipeline(Pipeline(), 1)([face(1)], generator=[face_generator(0, 0)], output_type="pil")
    with pytest.raises(InvalidInputError, match="one sample"):
        GatheringRestorer(Pipeline(), RestoreOptions(samples=2), faces_per_call=4)


def test_the_real_model_gives_a_face_the_same_picture_among_any_others() -> None:
    """To the last digit or two: where a face lies in a call can change the order of some sums."""
    from prefrestore.pipeline.build import load_preset_pipeline

    model = load_preset_pipeline("tiny")
    model.set_progress_bar_config(disable=True)
    faces = np.random.default_rng(0).random((3, model.face_size, model.face_size, 3)).astype(np.float32)

    def run(order: list[int]) -> dict[int, NDArray[np.float32]]:
        generators = [face_generator(0, index) for index in order]
        made = GatheringPipeline(model, 3)([faces[index] for index in order], generator=generators).images
        return dict(zip(order, made, strict=True))

    whole = run([0, 1, 2])
    for order in ([2, 0, 1], [1], [2, 0]):
        for index, image in run(order).items():
            np.testing.assert_allclose(image, whole[index], rtol=0, atol=1e-6)

