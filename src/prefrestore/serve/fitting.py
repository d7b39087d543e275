"""The scorer, fitted to what people chose here: `prefrestore preference fit` as a job of the worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from prefrestore.errors import PrefRestoreError
from prefrestore.serve.jobs import Cancelled, Job, Jobs
from prefrestore.serve.judgement_schemas import Fit, FitRequest
from prefrestore.serve.judgements import Judging
from prefrestore.serve.problems import Problem, log_defect

ABOUT = "fit"
"""Of its job; no restoration has such an id."""
TOLD_EVERY = 10
"""Steps."""


class Fitting:
    """The newest fit of a service; ``told`` hears of every change."""

    def __init__(self, folder: Path, judging: Judging, jobs: Jobs, told: Callable[[], None]) -> None:
        self._folder, self._judging, self._jobs, self._told = folder, judging, jobs, told
        self.fit: Fit | None = None

    def get(self) -> Fit:
        """How it is; Problem 404 when there was none."""
        if self.fit is None:
            raise Problem(404, "no scorer was fitted since the service was started")
        return self.fit

    def start(self, asked: FitRequest) -> Fit:
        """Let a scorer be fitted to all judgements; Problem 409 while one is, or with fewer than two."""
        if self._jobs.find(ABOUT) is not None:
            raise Problem(409, "a scorer is being fitted already: wait for it, or cancel it")
        if self._judging.state(None).count < 2:
            raise Problem(409, "a fit needs two judgements or more: one to learn from, one to be tested on")
        with self._jobs.place():
            self.fit = Fit(of=asked.steps)
            self._jobs.submit(Job(ABOUT, lambda job: self._run(job, asked)))
        self._told()
        return self.fit

    def cancel(self) -> None:
        """Stop it; Problem 404 when none is being fitted."""
        job = self._jobs.find(ABOUT)
        if job is None:
            raise Problem(404, "no scorer is being fitted")
        self._jobs.cancel(job)
        self._end(message="it was cancelled")

    def _end(self, *, message: str) -> None:
        self.fit = self.get().model_copy(update={"status": "failed", "message": message})
        self._told()

    def _run(self, job: Job, asked: FitRequest) -> None:
        from prefrestore.preference import fit as judged

        fits = self._judging.folder / "fits"
        numbers = [int(path.name) for path in fits.glob("*") if path.name.isdecimal()]
        output = fits / str(max(numbers, default=0) + 1)

        def after_step(_: dict[str, float]) -> bool:
            job.check()
            fit = self.get()
            fit.done += 1
            if fit.done % TOLD_EVERY == 0:
                self._told()
            return False

        self._say(status="running")
        try:
            config = judged.Config(
                judgements=(self._judging.file,), output_dir=output, steps=asked.steps, held_out=asked.held_out
            )
            judged.run(config, log=lambda line: None, after_step=after_step)
            self._finish(output)
        except Cancelled:
            return
        except PrefRestoreError as error:
            self._end(message=str(error))
        except Exception as error:  # noqa: BLE001 (told by the document, and a defect by the log)
            log_defect(error)
            self._end(message="the service met an error of its own; its log says where")

    def _finish(self, output: Path) -> None:
        from prefrestore.preference.bradley_terry import wilson_interval

        summary = json.loads((output / "fit.json").read_text())
        before, after = summary["before"], summary["after"]
        self._say(
            status="done",
            rule=summary["rule"],
            train=summary["train"],
            held_out=summary["held_out"],
            before=before and before["accuracy"],
            after=after and after["accuracy"],
            interval_after=after and wilson_interval(after["accuracy"], after["pairs"]),
            scorer=(output / "scorer").relative_to(self._folder).as_posix(),
        )

    def _say(self, **changes: object) -> None:
        self.fit = self.get().model_copy(update=changes)
        self._told()
