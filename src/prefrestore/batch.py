"""Many pictures, one after another or some at once: a failure is reported and stops nothing else."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from prefrestore.errors import InvalidInputError, PrefRestoreError
from prefrestore.plan import Task

Status = Literal["restored", "unchanged", "no face", "planned", "skipped", "failed"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one picture.

    status: ``restored``; ``unchanged`` (it has faces, but the rules or the user left all of them as they are);
    ``no face``; ``planned`` (a dry run); ``skipped`` (the output was there); ``failed``.
    message: one sentence that names the file; empty when all went well.
    faces, restored: how many were found, and how many of those were restored.
    seconds: from reading to the last byte written.
    """

    source: Path
    status: Status
    message: str = ""
    faces: int = 0
    restored: int = 0
    warnings: tuple[str, ...] = ()
    output: Path | None = None
    seconds: float = 0.0

    @property
    def is_problem(self) -> bool:
        """Whether the exit status of a run with this outcome is 1: it failed, or it showed no face to restore."""
        return self.status in ("failed", "no face")


class SharedPipeline:
    """A pipeline that several threads may call: one call runs at a time, everything else is the pipeline's own."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._lock = threading.Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The pipeline's call, once it is this thread's turn."""
        with self._lock:
            return self._pipeline(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)


def run_tasks(
    tasks: Sequence[Task], work: Callable[[Task], Outcome], *, jobs: int = 1, skip_existing: bool = False
) -> Iterator[Outcome]:
    """Do `work` for every task in `jobs` threads; outcomes come in the order of the tasks.

    No more than `jobs` pictures are in memory at a time. An error of one task
    becomes its outcome: the sentence of an error raised on purpose; for any other error its type and its text.
    Raises InvalidInputError for `jobs` below 1.
    """
    if jobs < 1:
        raise InvalidInputError(f"the number of jobs is at least 1, not {jobs}")

    def guarded(task: Task) -> Outcome:
        started = time.monotonic()
        if skip_existing and task.output.exists() and task.record.exists():
            return Outcome(source=task.source, status="skipped", output=task.output)
        try:
            outcome = work(task)
        except PrefRestoreError as error:
            outcome = Outcome(source=task.source, status="failed", message=_naming(task.source, str(error)))
        except MemoryError:
            message = f"{task.source}: not enough memory for this picture"
            outcome = Outcome(source=task.source, status="failed", message=message)
        # The other pictures must not pay for a defect that this one brings to light; it is reported as what it is.
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
