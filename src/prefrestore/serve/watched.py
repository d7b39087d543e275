"""The pipeline and the detector as one job sees them: they say where they are, and stop when it is cancelled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from prefrestore.serve.jobs import Job
from prefrestore.serve.schemas import Face


class Watched:
    """The pipeline in one job: it tells which face it is at, and stops between steps when the job is cancelled.

    Args:
        pipeline: a PrefRestorePipeline.
        job: may be cancelled.
        at: told the number of the face that is drawn, from 1.
    """

    def __init__(self, pipeline: Any, job: Job, at: Callable[[int], None]) -> None:
        self._pipeline, self._job, self._at = pipeline, job, at
        self._done = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)

    def _begin(self, count: int) -> None:
        self._job.check()
        self._at(self._done + 1)
        self._done += count

    def __call__(self, faces: Any, **options: Any) -> Any:
        """As the pipeline's."""
        self._begin(len(faces))
        return self._pipeline(faces, callback_on_step_end=self._step, **options)

    def prepare(self, faces: Any) -> Any:
        """As the pipeline's; where several samples of a face are drawn, they begin here."""
        self._job.check()
        return self._pipeline.prepare(faces)

    def encode_semantics(self, images: Any, *args: Any, **options: Any) -> Any:
        """As the pipeline's."""
        self._begin(len(images))
        return self._pipeline.encode_semantics(images, *args, **options)

    def sample(self, *args: Any, **options: Any) -> Any:
        """As the pipeline's."""
        self._job.check()
        return self._pipeline.sample(*args, **options)

    def _step(self, _: Any, _index: int, _time: float, given: dict[str, Any]) -> dict[str, Any]:
        self._job.check()
        return given


class Finder:
    """A detector that says what it does, and stops when its job is cancelled."""

    def __init__(self, detector: Any, job: Job, found: Any) -> None:
        self._detector, self._job, self._found = detector, job, found

    def detect(self, rgb: Any) -> Any:
        """As the detector's."""
        self._job.check()
        faces = self._detector.detect(rgb)
        self._found(len(faces))
        self._job.check()
        return faces


class Known:
    """A detector that has found the faces of this photo already; of crops it finds what the real one does."""

    def __init__(self, faces: Sequence[Face], detector: Any) -> None:
        self._faces, self._detector, self._asked = faces, detector, False

    def detect(self, rgb: Any) -> Any:
        """As the detector's; the whole photo is the first that it is asked about."""
        from prefrestore.faces.detect import Face as Detected

        if self._asked:
            return self._detector.detect(rgb)
        self._asked = True
        return [Detected(face.box, np.array(face.points, np.float64), face.score) for face in self._faces]
