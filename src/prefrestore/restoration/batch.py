"""Many pictures, one after another or some at once: a failure is reported and stops nothing else."""

from __future__ import annotations

import inspect
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefrestore.errors import InvalidInputError, PrefRestoreError
from prefrestore.files.fingerprints import file_hash
from prefrestore.restoration.plan import Task
from prefrestore.restoration.standing import Standing, Standings, settings_for

if TYPE_CHECKING:
    from prefrestore.faces.detect import FaceDetector
    from prefrestore.faces.identity import IdentityEmbedder
    from prefrestore.pictures.photo import Photo
    from prefrestore.restoration.options import RestoreOptions
    from prefrestore.restoration.photo import PhotoResult

Status = Literal["restored", "unchanged", "no face", "planned", "skipped", "failed"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one picture.

    status: ``restored``; ``unchanged`` (it has faces, but the rules or the user left all of them as they
    are); ``no face``; ``planned`` (a dry run); ``skipped`` (the output was there); ``failed``.
    message: one sentence that names the file; empty when all went well.
    faces, restored: how many were found, and how many of those were restored.
    notes: what of the file was not kept, and why it was done again; a sentence each.
    seconds: from reading to the last byte written.
    """

    source: Path
    status: Status
    message: str = ""
    faces: int = 0
    restored: int = 0
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    output: Path | None = None
    seconds: float = 0.0

    @property
    def is_problem(self) -> bool:
        """Whether the exit status of a run with this outcome is 1: it failed, or it showed no face to
        restore.
        """
        return self.status in ("failed", "no face")


class SharedPipeline:
    """A pipeline that several threads may call: one call, of it or of a method, runs at a time; everything else is the
    pipeline's own.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._lock = threading.Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The pipeline's call, once it is this thread's turn."""
        with self._lock:
            return self._pipeline(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._pipeline, name)
        if not inspect.ismethod(value):
            return value

        def in_turn(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                return value(*args, **kwargs)

        return in_turn


class PhotoRestorer:
    """What `run_tasks` does for one photo: read, restore, write; may be called from several threads.

    Args:
        pipeline: a PrefRestorePipeline, or anything called like one. None makes a dry run: the photo is read
            and its faces are found, nothing is restored or written.
        crops, compare: also write each restored face before and after, and the picture before and after.
        quality: 1..100 of JPEG, WebP and AVIF; None is 95.
        settings: what decides the results, JSON values, for the records; None: they do not say it, so that
            ``--skip-existing`` does these pictures again.
    """

    def __init__(
        self,
        pipeline: Any | None,
        options: RestoreOptions,
        *,
        crops: bool = False,
        compare: bool = False,
        quality: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.pipeline = None if pipeline is None else SharedPipeline(pipeline)
        self.options, self.settings = options, settings
        self.crops, self.compare, self.quality = crops, compare, quality
        self._local = threading.local()

    def __call__(self, task: Task) -> Outcome:
        """Restore one photo. Raises what `restore_photo`, `read_photo` and `write_photo` raise."""
        from prefrestore.pictures.read import page_numbers, read_photo
        from prefrestore.restoration.output import Written
        from prefrestore.restoration.photo import restore_photo

        sha256 = file_hash(task.source) if task.source.is_file() else None
        options = self.options if task.caption is None else replace(self.options, prompt=task.caption)
        pages = page_numbers(task.source, max_pixels=options.max_pixels)
        if len(pages) > 1 and (options.faces is not None or task.output.suffix.lower() not in (".tif", ".tiff")):
            why = "its faces cannot be chosen by number" if options.faces is not None else "only TIFF holds them"
            raise InvalidInputError(f"{task.source} has {len(pages)} pages: {why}")
        read = partial(read_photo, task.source, max_pixels=options.max_pixels)
        if self.pipeline is None:
            return self._planned(task, [read(page=page) for page in pages])

        def restore(page: int) -> PhotoResult:
            tools: dict[str, Any] = {"detector": self._detector(), "embedder": self._embedder()}
            return restore_photo(read(page=page), self.pipeline, options=options, **tools)

        made: dict[str, Any] = {"input_sha256": sha256}
        if self.settings is not None:
            made["run"] = settings_for(task, self.settings)
        written = Written(task=task, crops=self.crops, compare=self.compare, quality=self.quality, made=made)
        untouched = options.scale == 1 and options.background is None
        if len(pages) == 1:
            written.picture(restore(pages[0]), untouched=untouched)
        else:
            written.pages(pages, restore, untouched=untouched)
        faces = written.faces
        restored = [face for face in faces if face.status == "restored"]
        outcome = Outcome(
            source=task.source,
            status="restored" if restored else "unchanged",
            faces=len(faces),
            restored=len(restored),
            warnings=written.warnings,
            notes=written.notes,
            output=task.output,
        )
        if not faces:
            return replace(outcome, status="no face", message=f"{task.source}: no face was found")
        if not restored:
            why = "; ".join(f"face {face.index}: {face.reason}" for face in faces)
            return replace(outcome, message=f"{task.source}: no face was restored ({why})")
        return outcome

    def _planned(self, task: Task, pages: Sequence[Photo]) -> Outcome:
        told, found = [], 0
        for number, photo in enumerate(pages):
            faces = [] if self.options.aligned else self._detector().detect(photo.rgb8())
            found += 1 if self.options.aligned else len(faces)
            page = f"page {number} " if len(pages) > 1 else ""
            told += [
                f"{page}face {index}: {face.box[2]:.0f} px wide at {face.box[0]:.0f},{face.box[1]:.0f}"
                for index, face in enumerate(faces)
            ]
        if not found:
            message = f"{task.source}: no face was found"
            return Outcome(source=task.source, status="no face", message=message, output=task.output)
        return Outcome(source=task.source, status="planned", message="; ".join(told), faces=found, output=task.output)

    # OpenCV's networks hold their input, so each thread has its own.
    def _detector(self) -> FaceDetector:
        if not hasattr(self._local, "detector"):
            from prefrestore.faces.detect import FaceDetector

            self._local.detector = FaceDetector()
        detector: FaceDetector = self._local.detector
        return detector

    def _embedder(self) -> IdentityEmbedder:
        if not hasattr(self._local, "embedder"):
            from prefrestore.faces.identity import IdentityEmbedder

            self._local.embedder = IdentityEmbedder()
        embedder: IdentityEmbedder = self._local.embedder
        return embedder


def is_done(task: Task) -> bool:
    """Whether an earlier run finished this picture: the record is written last."""
    return task.output.exists() and task.record.exists()


def run_tasks(
    tasks: Sequence[Task], work: Callable[[Task], Outcome], *, jobs: int = 1, earlier: Standings | None = None
) -> Iterator[Outcome]:
    """Do `work` for every task in `jobs` threads; outcomes come in the order of the tasks.

    Pictures that `earlier` finds done are skipped; those that it finds done otherwise are done again, with a note.

    No more than `jobs` pictures are in memory at a time. An error of one task
    becomes its outcome: the sentence of an error raised on purpose; for any other error its type and its
    text. Raises InvalidInputError for `jobs` below 1.
    """
    if jobs < 1:
        raise InvalidInputError(f"the number of jobs is at least 1, not {jobs}")

    def guarded(task: Task) -> Outcome:
        started = time.monotonic()
        try:
            found = Standing(done=False) if earlier is None else earlier.of(task)
            if found.done:
                return Outcome(source=task.source, status="skipped", output=task.output)
            outcome = work(task)
            if found.differs:
                outcome = replace(outcome, notes=(found.differs, *outcome.notes))
        except PrefRestoreError as error:
            outcome = Outcome(source=task.source, status="failed", message=_naming(task.source, str(error)))
        except MemoryError:
            message = f"{task.source}: not enough memory for this picture"
            outcome = Outcome(source=task.source, status="failed", message=message)
        # The other pictures must not pay for a defect that this one brings to light; it is reported as what
        # it is.
        except Exception as error:  # noqa: BLE001
            message = f"{task.source}: unexpected {type(error).__name__}: {error}"
            outcome = Outcome(source=task.source, status="failed", message=" ".join(message.split()))
        return replace(outcome, seconds=time.monotonic() - started)

    if jobs == 1:
        yield from map(guarded, tasks)
        return
    executor = ThreadPoolExecutor(jobs, thread_name_prefix="photo")
    try:
        waiting: list[Future[Outcome]] = []
        for task in tasks:
            waiting.append(executor.submit(guarded, task))
            if len(waiting) == 2 * jobs:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
    finally:
        # Reached by an interrupt too: what has not begun is dropped, what is being written is finished.
        executor.shutdown(wait=True, cancel_futures=True)


def count(outcomes: Sequence[Outcome]) -> dict[Status, int]:
    """How many outcomes there are of each status that occurs."""
    return dict(Counter(outcome.status for outcome in outcomes))


def _naming(source: Path, sentence: str) -> str:
    """`sentence`, with the file in front when it does not name it."""
    return sentence if str(source) in sentence or source.name in sentence else f"{source}: {sentence}"
