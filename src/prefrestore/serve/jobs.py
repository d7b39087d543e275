"""One worker thread for the model, and a bounded queue before it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from prefrestore.serve.problems import Problem, log_defect


class Cancelled(Exception):
    """Raised inside a job that is no longer wanted."""


@dataclass(eq=False)
class Job:
    """Something for the worker.

    Args:
        about: id of the restoration that it is for; other names are other work.
        run: does it; raises nothing that it could tell its restoration instead.
    """

    about: str
    run: Callable[[Job], None]
    done: Future[None] = field(default_factory=Future)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise Cancelled when the job is no longer wanted; called wherever it can stop."""
        if self._cancelled.is_set():
            raise Cancelled

    @property
    def is_cancelled(self) -> bool:
        """Whether it should stop."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ask it to stop."""
        self._cancelled.set()


class Jobs:
    """The queue and its worker.

    Args:
        limit: most jobs that wait or run, places that are reserved for uploads included.
        moved: called, with the ids that wait or run, when the queue has changed.
    """

    def __init__(self, limit: int, moved: Callable[[list[str]], None]) -> None:
        self.limit, self._moved = limit, moved
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._reserved = self._taken = 0
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self, first: Callable[[], None]) -> None:
        """Begin to work; ``first`` is done before all jobs."""
        self._thread = threading.Thread(target=self._work, args=(first,), name="model", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Cancel the running job and end; what waits stays as it is, on disk."""
        with self._changed:
            self._stopped = True
            if self._running is not None:
                self._running.cancel()
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return self._length()

    def _length(self) -> int:
        return len(self._waiting) + (self._running is not None) + self._reserved

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue while an upload comes in.

        Raises:
            Problem: 429, the queue is full.
        """
        with self._changed:
            if self._length() >= self.limit:
                raise Problem(
                    429,
                    f"{self.limit} photos wait already, which is all that may: try again later",
                    {"Retry-After": "5"},
                )
            self._reserved += 1
        try:
            yield
        finally:
            with self._changed:
                # Given back, unless a job has taken it.
                if self._taken:
                    self._taken -= 1
                else:
                    self._reserved -= 1

    def submit(self, job: Job) -> Job:
        """Let it wait; call inside of `place`."""
        with self._changed:
            if self._reserved:
                self._reserved, self._taken = self._reserved - 1, self._taken + 1
            self._waiting.append(job)
            self._changed.notify_all()
        self._tell()
        return job

    def find(self, about: str) -> Job | None:
        """The job that waits or runs for a restoration."""
        with self._changed:
            return next((job for job in self._all() if job.about == about), None)

    def cancel(self, job: Job) -> None:
        """Take it out of the queue, or ask it to stop."""
        job.cancel()
        with self._changed:
            was_waiting = job in self._waiting
            if was_waiting:
                self._waiting.remove(job)
        if was_waiting:
            job.done.set_result(None)
            self._tell()

    def position(self, about: str) -> int | None:
        """0 for the restoration whose job runs, 1 for the next; None for one that does not wait."""
        with self._changed:
            running = self._running is not None
            for number, job in enumerate(self._all()):
                if job.about == about:
                    return number if running else number + 1
        return None

    def _all(self) -> list[Job]:
        return [*([self._running] if self._running is not None else []), *self._waiting]

    def _tell(self) -> None:
        with self._changed:
            about = [job.about for job in self._all()]
        self._moved(about)

    def _work(self, first: Callable[[], None]) -> None:
        first()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                job = self._running = self._waiting.popleft()
            self._tell()
            try:
                job.run(job)
            # The worker outlives whatever a job does.
            except Exception as error:  # noqa: BLE001
                log_defect(error)
            finally:
                with self._changed:
                    self._running = None
                job.done.set_result(None)
                self._tell()
