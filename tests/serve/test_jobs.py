"""The queue and its one worker, without a model."""

import threading
from collections.abc import Callable

import pytest

pytest.importorskip("fastapi")
from prefrestore.serve.jobs import Cancelled, Job, Jobs
from prefrestore.serve.problems import Problem


def submitted(jobs: Jobs, about: str, run: Callable[[Job], None]) -> Job:
    with jobs.place():
        return jobs.submit(Job(about, run))


def test_jobs_run_one_at_a_time_in_order_after_the_first() -> None:
    done: list[str] = []
    jobs = Jobs(10, lambda about: None)
    all_jobs = [submitted(jobs, str(number), lambda job: done.append(job.about)) for number in range(4)]
    jobs.start(lambda: done.append("model"))
    for job in all_jobs:
        job.done.result(timeout=10)
    assert done == ["model", "0", "1", "2", "3"]
    assert len(jobs) == 0
    jobs.stop()


def test_the_queue_is_bounded_and_says_where_one_is() -> None:
    told: list[list[str]] = []
    jobs = Jobs(2, told.append)
    for about in ("a", "b"):
        submitted(jobs, about, lambda job: None)
    with pytest.raises(Problem) as full, jobs.place():
        pass
    assert full.value.status == 429 and "Retry-After" in full.value.headers
    assert [jobs.position(about) for about in ("a", "b", "c")] == [1, 2, None]
    assert told[-1] == ["a", "b"]


def test_a_job_takes_its_place_and_no_second_one() -> None:
    jobs = Jobs(3, lambda about: None)
    with jobs.place():
        jobs.submit(Job("a", lambda job: None))
        assert len(jobs) == 1
    assert len(jobs) == 1
    with pytest.raises(ZeroDivisionError), jobs.place():
        assert len(jobs) == 2
        raise ZeroDivisionError
    assert len(jobs) == 1


def test_a_place_is_free_again_when_its_upload_fails() -> None:
    jobs = Jobs(1, lambda about: None)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), jobs.place():
            raise ZeroDivisionError
    assert len(jobs) == 0


def test_cancelling() -> None:
    began, stopped = threading.Event(), []

    def long(job: Job) -> None:
        began.set()
        try:
            while True:
                job.check()
                threading.Event().wait(0.001)
        except Cancelled:
            stopped.append(job.about)

    jobs = Jobs(10, lambda about: None)
    running, waiting = submitted(jobs, "running", long), submitted(jobs, "waiting", long)
    jobs.start(lambda: None)
    assert began.wait(10)
    assert jobs.position("running") == 0
    jobs.cancel(waiting)
    waiting.done.result(timeout=10)
    jobs.cancel(running)
    running.done.result(timeout=10)
    assert stopped == ["running"]
    jobs.stop()


def test_the_worker_outlives_a_defect() -> None:
    def broken(job: Job) -> None:
        raise ZeroDivisionError

    jobs = Jobs(10, lambda about: None)
    first, second = submitted(jobs, "a", broken), submitted(jobs, "b", lambda job: None)
    jobs.start(lambda: None)
    first.done.result(timeout=10)
    second.done.result(timeout=10)
    jobs.stop()
