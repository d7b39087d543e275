"""What a run that goes on leaves out: the same bytes with the same settings, and nothing else."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefrestore.files.fingerprints import file_hash
from prefrestore.restoration.batch import Outcome, run_tasks
from prefrestore.restoration.plan import Task, make_plan
from prefrestore.restoration.standing import Standings, settings_for

SETTINGS = {"prefrestore": "0", "options": {"seed": 0, "steps": None}, "crops": False}


def task_of(path: Path) -> Task:
    (task,) = make_plan([path], path.parent / "out").tasks
    return task


def finish(task: Task, settings: dict[str, Any] = SETTINGS, **changes: Any) -> None:
    task.output.parent.mkdir(exist_ok=True)
    task.output.write_bytes(b"restored")
    record = {"record": 1, "prefrestore": "0", "faces": [], "input": {"name": task.source.name}}
    record |= {"input_sha256": file_hash(task.source), "files": {"output": task.output.name}}
    task.record.write_text(json.dumps({**record, "run": settings_for(task, settings), **changes}))


@pytest.fixture
def task(tmp_path: Path) -> Task:
    (tmp_path / "a.png").write_bytes(b"picture")
    return task_of(tmp_path / "a.png")


def test_the_same_again_is_done(task: Task) -> None:
    assert not Standings(SETTINGS).is_done(task)
    finish(task)
    assert Standings(SETTINGS).is_done(task)
    task.output.unlink()
    assert not Standings(SETTINGS).is_done(task)


def test_an_edited_photo_is_new(task: Task) -> None:
    finish(task)
    task.source.write_bytes(b"pictura")
    found = Standings(SETTINGS).of(task)
    assert not found.done and "a.png" in found.differs and "changed" in found.differs


def test_another_photo_of_that_name_is_new(task: Task) -> None:
    finish(task)
    (task.source.parent / "a.gif").write_bytes(b"another")
    other = task_of(task.source.parent / "a.gif")
    assert other.output == task.output
    found = Standings(SETTINGS).of(other)
    assert not found.done and "a.gif" in found.differs and "from a.png" in found.differs


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({**SETTINGS, "options": {"seed": 9, "steps": None}}, "options.seed 0, now 9"),
        ({**SETTINGS, "crops": True}, "crops false, now true"),
        ({**SETTINGS, "prefrestore": "1"}, "prefrestore"),
    ],
)
def test_other_settings_are_named(task: Task, settings: dict[str, Any], word: str) -> None:
    finish(task)
    found = Standings(settings).of(task)
    assert not found.done and word in found.differs


def test_another_caption_is_named(task: Task) -> None:
    finish(task)
    assert "prompt" in Standings(SETTINGS).of(replace(task, caption="A man.")).differs


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"record": 1, "prefrestore": "0", "input": {}}', "\xff"])
def test_a_record_that_does_not_say_is_not_believed(task: Task, text: str) -> None:
    finish(task)
    task.record.write_text(text, encoding="latin-1")
    assert not Standings(SETTINGS).is_done(task)


def test_what_is_done_is_skipped_and_what_differs_is_done_again_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / "in" / f"{name}.png").write_bytes(name.encode())
    tasks = make_plan([tmp_path / "in"], tmp_path / "out").tasks
    finish(tasks[0])
    finish(tasks[1], {**SETTINGS, "crops": True})

    def work(task: Task) -> Outcome:
        return Outcome(source=task.source, status="restored", output=task.output)

    made = list(run_tasks(tasks, work, earlier=Standings(SETTINGS)))
    assert [outcome.status for outcome in made] == ["skipped", "restored", "restored"]
    assert "crops" in made[1].notes[0] and made[2].notes == ()
