"""Everything that a running service is made of, and what connects it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from prefrestore.errors import InvalidInputError
from prefrestore.serve import uploads
from prefrestore.serve.events import Broadcast, Event
from prefrestore.serve.fitting import ABOUT, Fitting
from prefrestore.serve.jobs import Job, Jobs
from prefrestore.serve.judgements import Judging
from prefrestore.serve.model import Model
from prefrestore.serve.problems import Problem, logger
from prefrestore.serve.restoring import Restorer, restore_options
from prefrestore.serve.schemas import Changes, GuessRequest, Options, Restoration, Work
from prefrestore.serve.schemas import Model as ModelState
from prefrestore.serve.settings import Settings
from prefrestore.serve.store import Store, safe_name, sweep

SEEDS = 4
"""Guesses of one request that names none."""
MOST_GUESSES = 64
"""Of one face."""
AT_ONCE = 2
"""Whole pictures that are put together or encoded at a time: memory does not grow with the clients."""


class Service:
    """The store, the queue, the model and the listeners of one server."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.broadcast = Broadcast()
        self.model = Model(settings, self._tell_model)
        self.jobs = Jobs(settings.queue, self._tell_places)
        self.store = Store(
            settings.folder,
            keep_days=settings.keep_days,
            most=settings.most,
            changed=self._tell,
            removed=lambda id: self.broadcast.publish(Event("removed", id, f'{{"id":"{id}"}}')),
        )
        self.restorer = Restorer(self.store, self.model)
        self.judging = Judging(settings.folder, self.store)
        self.fitting = Fitting(settings.folder, self.judging, self.jobs, self.tell_judgements)
        self.pictures = threading.BoundedSemaphore(AT_ONCE)

    def shown(self, one: Restoration) -> Restoration:
        """The document with its place in the queue."""
        one.position = self.jobs.position(one.id)
        return one

    def event(self, one: Restoration) -> Event:
        """The document as an event."""
        return Event("restoration", one.id, self.shown(one).model_dump_json())

    def model_event(self) -> Event:
        """How the model is."""
        return Event("model", None, self.model.state.model_dump_json())

    def tell_judgements(self) -> None:
        """Tell everybody how many judgements there are, and how the fit is."""
        state = self.judging.state(self.fitting.fit)
        self.broadcast.publish(Event("judgements", None, state.model_dump_json()))

    def clear_judgements(self) -> None:
        """Remove all judgements; Problem 409 while a scorer is fitted to them."""
        if self.jobs.find(ABOUT) is not None:
            raise Problem(409, "a scorer is being fitted to the judgements: wait for it, or cancel it")
        self.judging.clear()
        self.fitting.fit = None
        self.tell_judgements()

    def _tell(self, one: Restoration) -> None:
        self.broadcast.publish(self.event(one))

    def _tell_model(self, state: ModelState) -> None:
        self.broadcast.publish(Event("model", None, state.model_dump_json()))

    def _tell_places(self, about: list[str]) -> None:
        for id in about:
            self.store.touch(id)

    def add(self, name: str, file: BinaryIO, options: Options) -> Job:
        """Keep an upload and let it wait; inside of ``jobs.place``. Raises what `uploads.look` raises, and
        InvalidInputError for options that contradict each other."""
        restore_options(options)
        one = self.store.new(
            name,
            lambda path: uploads.copy(file, path, self.settings.max_bytes),
            lambda path: uploads.look(path, safe_name(name)),
            options,
        )
        return self.jobs.submit(Job(one.id, self.restorer.restore))

    def example(self) -> Job:
        """The example photo, as if it had been uploaded; Problem 503 where it is not installed."""
        from prefrestore.degrade.example import write_example
        from prefrestore.errors import MissingDependencyError

        def put(path: Path) -> None:
            try:
                write_example(path)
            except MissingDependencyError as error:
                raise Problem(503, str(error)) from error

        one = self.store.new("astronaut.png", put, lambda path: uploads.look(path, "astronaut.png"), Options(scale=2))
        with self.store.change(one.id) as now:
            now.example = True
        return self.jobs.submit(Job(one.id, self.restorer.restore))

    def retry(self, id: str) -> Restoration:
        """Let a failed restoration wait once more."""
        with self.store.change(id) as one:
            if one.status != "failed":
                raise Problem(409, f"{one.name} has not failed")
            one.status, one.message, one.interrupted = "queued", "", False
        self.jobs.submit(Job(id, self.restorer.restore))
        return self.shown(self.store.get(id))

    def remove(self, id: str) -> None:
        """Cancel it, and delete all of it. Problem 404 when there is none."""
        self.store.get(id)
        if (job := self.jobs.find(id)) is not None:
            self.jobs.cancel(job)
        self.store.remove(id)

    def sweep(self) -> None:
        """Remove what is too old."""
        sweep(self.store, self.remove)

    def change(self, id: str, changes: Changes) -> Restoration:
        """New strengths, faces on and off, and other guesses; InvalidInputError for what is not there."""
        with self.store.change(id) as one:
            check_done(one)
            for change in changes.faces:
                if change.index >= len(one.faces):
                    raise InvalidInputError(f"{one.name} has {len(one.faces)} faces, counted from 0")
                face = one.faces[change.index]
                if face.guess is None:
                    raise InvalidInputError(f"face {face.index} of {one.name} was not restored: ask for guesses first")
                if change.guess is not None and change.guess >= len(face.guesses):
                    raise InvalidInputError(f"face {face.index} of {one.name} has {len(face.guesses)} guesses, from 0")
            for change in changes.faces:
                face = one.faces[change.index]
                for name in ("strength", "on", "guess"):
                    if (value := getattr(change, name)) is not None:
                        setattr(face, name, value)
                guess = face.guesses[face.guess or 0]
                face.similarity, face.warnings = guess.similarity, list(guess.warnings)
            one.version += 1
        return self.shown(self.store.get(id))

    def guesses(self, id: str, index: int, asked: GuessRequest) -> Restoration:
        """Let more restorations of a face be made."""
        one = self.store.get(id)
        check_face(one, index)
        face = one.faces[index]
        tried = {guess.seed for guess in face.guesses if guess.prompt == asked.prompt}
        start = one.options.seed
        free = (seed for seed in range(start, start + SEEDS + len(tried) + 1) if seed not in tried)
        seeds = asked.seeds or [next(free) for _ in range(SEEDS)]
        if len(face.guesses) + len(seeds) > MOST_GUESSES:
            raise Problem(409, f"a face has at most {MOST_GUESSES} guesses")
        work = Work(kind="guesses", face=index, of=len(seeds))
        return self._work(id, work, lambda job: self.restorer.guess(job, index, asked, seeds))

    def map(self, id: str, index: int) -> Restoration:
        """Let the uncertainty of a face be mapped."""
        check_face(self.store.get(id), index)
        return self._work(id, Work(kind="uncertainty", face=index), lambda job: self.restorer.map(job, index))

    def _work(self, id: str, work: Work, run: Callable[[Job], None]) -> Restoration:
        self.model.check()
        with self.jobs.place():
            with self.store.change(id) as one:
                check_done(one)
                if one.work is not None and one.work.status != "failed":
                    raise Problem(409, f"something is made for a face of {one.name} already: wait for it, or cancel it")
                one.work = work
            self.jobs.submit(Job(id, run))
        return self.shown(self.store.get(id))

    def stop_work(self, id: str) -> None:
        """Cancel what is made for a face."""
        one = self.store.get(id)
        if one.work is None:
            raise Problem(404, f"nothing is made for a face of {one.name}")
        if (job := self.jobs.find(id)) is not None:
            self.jobs.cancel(job)
        with self.store.change(id) as one:
            one.work = None

    def start(self) -> None:
        """Begin to work: all that takes long is done behind the page, which is there at once."""
        self.jobs.start(self._begin)

    def _begin(self) -> None:
        """In the worker's thread: an empty folder gets the example, and then the model is loaded."""
        if self.settings.example and not len(self.store):
            try:
                self.example()
            except Problem as problem:  # an example that is not installed is no reason not to start
                logger.info("no example: %s", problem.detail)
        self.model.load()

    def close(self) -> None:
        """Stop the worker and end the streams."""
        self.jobs.stop()
        self.broadcast.close()


def check_done(one: Restoration) -> None:
    """Problem 409 for a restoration that is not done."""
    if one.status == "failed":
        raise Problem(409, one.message)
    if one.status != "done":
        raise Problem(409, f"{one.name} is not restored yet")


def check_face(one: Restoration, index: int) -> None:
    """Problem 409, 404 when it is not done, or has no such face."""
    check_done(one)
    if index >= len(one.faces):
        raise Problem(404, f"{one.name} has {len(one.faces)} faces, counted from 0: there is no face {index}")
