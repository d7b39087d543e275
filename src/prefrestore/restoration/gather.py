"""Faces of several photos in one model call, with results that do not depend on which photos those were.

The numbers that a network gives a face depend, in their last digits, on how many faces are in the call, so every call
has one size, and what is missing is filled up. On some processors the place in the call still changes the seventh.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrestore.errors import InvalidInputError, PrefRestoreError
from prefrestore.restoration.batch import Outcome, PhotoRestorer, SharedPipeline
from prefrestore.restoration.options import RestoreOptions
from prefrestore.restoration.plan import Task


@dataclass(frozen=True)
class GatheredFaces:
    """images: (B,S,S,3) float32 in 0..1."""

    images: NDArray[np.float32]


@dataclass(eq=False)
class _Face:
    """One face that waits for its call, or has its result or error."""

    caller: int
    image: Any
    prompt: str | None
    generator: Any
    settings: Mapping[str, Any]
    result: NDArray[np.float32] | None = None
    error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return self.result is not None or self.error is not None

    def goes_with(self, other: _Face) -> bool:
        return self.prompt == other.prompt and self.settings == other.settings


class GatheringPipeline(SharedPipeline):
    """A pipeline for several threads: each model call holds exactly ``size`` faces, of whatever threads wait.

    A call is made as soon as ``size`` faces wait, or when no photo in hand could bring another one; then its last
    face is repeated until there are ``size``. Only faces with one prompt and equal settings are put together. An
    error of a call with faces of several threads is not told to all of them: each thread's faces are tried again
    without the others.

    Args:
        pipeline: a PrefRestorePipeline, or anything called like one that returns images as float arrays.
        size: faces of every call, 1 or more.

    Raises:
        InvalidInputError: ``size`` is below 1.
    """

    def __init__(self, pipeline: Any, size: int) -> None:
        if size < 1:
            raise InvalidInputError(f"a call holds 1 face or more, not {size}")
        super().__init__(pipeline)
        self._size = size
        self._changed = threading.Condition()
        self._waiting: list[_Face] = []
        self._photos = 0
        self._busy = False

    @contextmanager
    def photo(self) -> Iterator[None]:
        """While the block runs, this thread has a photo in hand: calls wait for the faces that it may bring."""
        with self._changed:
            self._photos += 1
        try:
            yield
        finally:
            with self._changed:
                self._photos -= 1
                self._changed.notify_all()

    def __call__(
        self,
        image: Sequence[Any],
        *,
        generator: Sequence[Any],
        prompt: str | Sequence[str | None] | None = None,
        output_type: str = "np",
        **settings: Any,
    ) -> GatheredFaces:
        """Faces and a generator for each, as `restoration.photo` calls a pipeline; raises what it raises."""
        if output_type != "np":
            raise InvalidInputError(f"faces that are gathered come back as arrays ('np'), not as '{output_type}'")
        prompts = [prompt] * len(image) if prompt is None or isinstance(prompt, str) else list(prompt)
        mine = [
            _Face(threading.get_ident(), face, text, source, settings)
            for face, text, source in zip(image, prompts, generator, strict=True)
        ]
        with self._changed:
            self._waiting += mine
            self._changed.notify_all()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: all(face.is_done for face in mine) or self._may_call())
                if all(face.is_done for face in mine):
                    break
                batch, self._busy = self._take(), True
            try:
                self._run(batch)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
        for face in mine:
            if face.error is not None:
                raise face.error
        return GatheredFaces(np.stack([face.result for face in mine if face.result is not None]))

    def _may_call(self) -> bool:
        if self._busy or not self._waiting:
            return False
        callers = len({face.caller for face in self._waiting})
        return len(self._waiting) >= self._size or callers >= self._photos

    def _take(self) -> list[_Face]:
        """The first face that waits and those that go with it; they wait no more."""
        batch = [face for face in self._waiting if face.goes_with(self._waiting[0])][: self._size]
        self._waiting = [face for face in self._waiting if face not in batch]
        return batch

    def _run(self, batch: Sequence[_Face]) -> None:
        """Give every face of the batch its result or its error."""
        callers = {face.caller for face in batch}
        states = [face.generator.get_state() for face in batch]
        try:
            self._call(batch)
        # Whatever it is, it belongs to the photo that brought it, and is raised in its thread.
        except Exception as error:  # noqa: BLE001
            if len(callers) == 1:
                for face in batch:
                    face.error = error
                return
            for face, state in zip(batch, states, strict=True):
                face.generator.set_state(state)
            for caller in callers:
                self._run([face for face in batch if face.caller == caller])
        except BaseException as error:  # an interrupt: no other thread may wait for what will not come
            for face in batch:
                face.error = error
            raise

    def _call(self, batch: Sequence[_Face]) -> None:
        import torch

        filling = self._size - len(batch)
        last = batch[-1]
        images = self._pipeline(
            [face.image for face in batch] + [last.image] * filling,
            prompt=last.prompt,
            generator=[face.generator for face in batch] + [torch.Generator().manual_seed(0) for _ in range(filling)],
            output_type="np",
            **last.settings,
        ).images
        if len(images) != self._size:
            raise PrefRestoreError(f"the pipeline returned {len(images)} faces, not {self._size}")
        for face, result in zip(batch, images, strict=False):
            face.result = np.asarray(result, np.float32)


class GatheringRestorer(PhotoRestorer):
    """A `prefrestore.restoration.batch.PhotoRestorer` whose model calls each hold exactly ``faces_per_call`` faces.

    Raises:
        InvalidInputError: ``faces_per_call`` is below 1, or the options ask for several samples a face.
    """

    def __init__(
        self,
        pipeline: Any,
        options: RestoreOptions,
        *,
        faces_per_call: int,
        crops: bool = False,
        compare: bool = False,
        quality: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if options.samples_a_face > 1:
            raise InvalidInputError("the faces of several photos are put together with one sample a face only")
        options = replace(options, batch_size=faces_per_call)
        self._gathering = GatheringPipeline(pipeline, faces_per_call)
        super().__init__(self._gathering, options, crops=crops, compare=compare, quality=quality, settings=settings)
        # The gathering pipeline sees to it that one call runs at a time; behind a lock no two threads would meet.
        self.pipeline = self._gathering

    def __call__(self, task: Task) -> Outcome:
        """Restore one photo; raises what `prefrestore.restoration.batch.PhotoRestorer` raises."""
        with self._gathering.photo():
            return super().__call__(task)
