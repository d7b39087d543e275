"""What the manifest remembers, and what a run that resumes does with it."""

import json
import os
from pathlib import Path

import pytest

from prefrestore.engines.manifest import Entry, Manifest, verdict
from prefrestore.files.fingerprints import InputFacts, file_hash, fingerprint
from prefrestore.restoration.plan import Task, make_plan
from prefrestore.restoration.standing import Standings, settings_for


@pytest.fixture
def task(tmp_path: Path) -> Task:
    (tmp_path / "a.png").write_bytes(b"picture")
    (made,) = make_plan([tmp_path / "a.png"], tmp_path / "out").tasks
    return made


SETTINGS = {"seed": 0}


def judged(task: Task, known: Entry | None, settings: str) -> str:
    return verdict(task, known, settings, Standings(SETTINGS))


def finish(task: Task) -> None:
    task.output.parent.mkdir(exist_ok=True)
    task.output.write_bytes(b"restored")
    record = {"record": 1, "prefrestore": "0", "input": {"name": "a.png"}, "input_sha256": file_hash(task.source)}
    task.record.write_text(json.dumps({**record, "files": {"output": "a.png"}, "run": settings_for(task, SETTINGS)}))


def entry(task: Task, **changes: object) -> Entry:
    values = {"status": "restored", "settings": "s", "input": InputFacts.of(task.source), **changes}
    return Entry(source=str(task.source), output=str(task.output), **values)  # type: ignore[arg-type]


def test_entries_are_read_as_they_were_written_and_the_last_one_counts(task: Task, tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "new" / "manifest.jsonl")
    assert manifest.read() == {}
    manifest.begin({"seed": 0})
    first = entry(task, message="zwei\nZeilen", warnings=("a", "b"), status="failed", tries=2, worker="host:1")
    manifest.add(first)
    assert manifest.read() == {str(task.source): first}
    manifest.add(entry(task))
    assert manifest.read() == {str(task.source): entry(task)}
    assert len(manifest.path.read_text().splitlines()) == 3


def test_a_line_cut_short_costs_its_own_photo_only(task: Task, tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "manifest.jsonl")
    whole = entry(task)
    manifest.add(whole)
    with manifest.path.open("a") as file:
        file.write(Entry(source="/b.png", output="/out/b.png", status="restored").as_line()[:40])
    later = Entry(source="/c.png", output="/out/c.png", status="restored")
    manifest.add(later)
    assert manifest.read() == {whole.source: whole, "/c.png": later}


def test_settings_differ_by_value_not_by_order() -> None:
    assert fingerprint({"a": 1, "b": None}) == fingerprint({"b": None, "a": 1})
    assert len({fingerprint({"seed": seed, "scale": 1}) for seed in (0, 1, None)}) == 3


def test_what_is_done_is_left_out(task: Task) -> None:
    assert judged(task, None, "s") == judged(task, entry(task), "s") == "new", "nothing is there yet"
    finish(task)
    assert judged(task, entry(task), "s") == "done"
    assert judged(task, None, "s") == "done", "made by a run without a manifest"
    assert verdict(task, None, "s", Standings({"seed": 1})) == "new"
    task.record.unlink()
    assert judged(task, entry(task), "s") == "new"


def test_other_settings_and_other_bytes_are_new(task: Task) -> None:
    finish(task)
    known = entry(task)
    assert judged(task, known, "t") == "new"
    os.utime(task.source, ns=(1, 1))
    assert judged(task, known, "s") == "done", "touched, but the bytes are the same"
    task.source.write_bytes(b"PICTURE")
    assert judged(task, known, "s") == "new", "as long as before, other bytes"
    task.source.write_bytes(b"longer than it was")
    assert judged(task, known, "s") == "new"
    task.source.unlink()
    assert judged(task, known, "s") == "new"


def test_failures_are_tried_again_and_killers_are_not(task: Task) -> None:
    finish(task)  # by an earlier run
    for status in ("failed", "lost"):
        assert judged(task, entry(task, status=status), "s") == "new"
    killer = entry(task, status="failed", set_aside=True)
    assert judged(task, killer, "s") == "set aside"
    assert judged(task, killer, "t") == "new"
    task.source.write_bytes(b"mended")
    assert judged(task, killer, "s") == "new"


def test_facts_of_what_cannot_be_read_never_hold(tmp_path: Path) -> None:
    facts = InputFacts.of(tmp_path / "nothing")
    assert facts == InputFacts()
    (tmp_path / "nothing").write_bytes(b"")
    assert not facts.still_hold(tmp_path / "nothing")
