"""Many pictures: order, failures, threads."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from prefrestore.errors import ImageReadError, InvalidInputError
from prefrestore.restoration.batch import Outcome, SharedPipeline, count, run_tasks
from prefrestore.restoration.plan import Task


def tasks(folder: Path, number: int) -> list[Task]:
    return [
        Task(
            source=folder / f"{i}.png",
            output=folder / f"out/{i}.png",
            record=folder / f"out/{i}.json",
            compare=folder / f"out/{i}_compare.png",
            crops=folder / f"out/{i}_faces",
            uncertainty=folder / f"out/{i}.uncertainty.png",
        )
        for i in range(number)
    ]


def fine(task: Task) -> Outcome:
    return Outcome(source=task.source, status="restored", faces=1, restored=1, output=task.output)


def failing(error: Exception) -> Callable[[Task], Outcome]:
    def work(task: Task) -> Outcome:
        if task.source.stem == "1":
            raise error
        return fine(task)

    return work


@pytest.mark.parametrize("jobs", [1, 3, 16])
def test_outcomes_come_in_the_order_of_the_tasks(tmp_path: Path, jobs: int) -> None:
    made = list(run_tasks(tasks(tmp_path, 11), fine, jobs=jobs))
    assert [outcome.source.stem for outcome in made] == [str(i) for i in range(11)]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ImageReadError("it is truncated"), "1.png: it is truncated"),
        (MemoryError(), "not enough memory"),
        (ZeroDivisionError("by\nzero"), "unexpected ZeroDivisionError: by zero"),
    ],
)
def test_a_failure_is_told_and_stops_nothing(tmp_path: Path, jobs: int, error: Exception, sentence: str) -> None:
    made = list(run_tasks(tasks(tmp_path, 4), failing(error), jobs=jobs))
    assert count(made) == {"restored": 3, "failed": 1}
    assert made[1].is_problem and sentence in made[1].message and "1.png" in made[1].message
    assert "\n" not in made[1].message


def test_a_sentence_that_names_the_file_is_left_as_it_is(tmp_path: Path) -> None:
    sentence = f"cannot read {tmp_path / '1.png'}"
    made = list(run_tasks(tasks(tmp_path, 2), failing(ImageReadError(sentence))))
    assert made[1].message == sentence


def test_no_more_tasks_than_jobs_are_in_hand(tmp_path: Path) -> None:
    lock, now, most = threading.Lock(), [0], [0]
    together = threading.Barrier(2)

    def work(task: Task) -> Outcome:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        together.wait(timeout=30)  # passes only if two tasks really run at once
        with lock:
            now[0] -= 1
        return fine(task)

    assert count(list(run_tasks(tasks(tmp_path, 8), work, jobs=2))) == {"restored": 8}
    assert most == [2]


def test_a_shared_pipeline_runs_one_call_at_a_time_and_is_the_pipeline_otherwise(tmp_path: Path) -> None:
    inside = threading.Lock()

    class Pipeline:
        config = SimpleNamespace(preset="fake")
        face_size = 64

        def __call__(self, value: int) -> int:
            # Fails at once if another thread is in here.
            assert inside.acquire(blocking=False)
            threading.Event().wait(0.001)
            inside.release()
            return value + 1

    shared = SharedPipeline(Pipeline())
    assert shared.face_size == 64 and shared.config.preset == "fake"

    def work(task: Task) -> Outcome:
        return Outcome(source=task.source, status="restored", faces=shared(1))

    made = list(run_tasks(tasks(tmp_path, 12), work, jobs=4))
    assert [outcome.faces for outcome in made] == [2] * 12


def test_no_jobs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="jobs"):
        list(run_tasks(tasks(tmp_path, 1), fine, jobs=0))
