"""Who is tried again, how often, and what is told, with workers that die on command."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from prefrestore.engines.manifest import Entry, Manifest
from prefrestore.engines.rounds import MAX_TRIES, drive
from prefrestore.files.fingerprints import InputFacts
from prefrestore.restoration.batch import Outcome, count
from prefrestore.restoration.plan import Task, make_plan


class Workers:
    """Restores photos by writing their files; the photos in ``deadly`` kill the worker, and whatever is in hand."""

    def __init__(self, deadly: dict[str, int] | None = None, *, late: bool = False, in_hand: int = 3) -> None:
        self.deadly = dict(deadly or {})
        self.late, self.in_hand = late, in_hand
        self.done: list[str] = []
        self.given: list[tuple[str, bool]] = []

    def __call__(self, tasks: Sequence[Task], alone: bool) -> Iterator[Entry]:
        size = 1 if alone else self.in_hand
        for start in range(0, len(tasks), size):
            group = tasks[start : start + size]
            self.given += [(task.source.stem, alone) for task in group]
            dying = [task.source.stem for task in group if self.deadly.get(task.source.stem, 0) > 0]
            for name in dying:
                self.deadly[name] -= 1
            if dying and not self.late:
                continue
            entries = [self.finish(task) for task in group]
            if not dying:
                yield from entries

    def finish(self, task: Task) -> Entry:
        if task.source.stem.startswith("bad"):
            return Entry(source=str(task.source), output=str(task.output), status="failed", message="is no picture")
        self.done.append(task.source.stem)
        task.output.parent.mkdir(exist_ok=True)
        task.output.write_text("restored")
        faces = [{"index": 0, "status": "restored", "warnings": ["soft"]}, {"index": 1, "status": "skipped"}]
        task.record.write_text(json.dumps({"faces": faces}))
        facts = InputFacts.of(task.source)
        return Entry(source=str(task.source), output=str(task.output), status="restored", faces=2, input=facts)


@pytest.fixture
def tasks(tmp_path: Path) -> tuple[Task, ...]:
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c", "d", "e", "f", "g"):
        (tmp_path / "in" / f"{name}.png").write_text(name)
    return make_plan([tmp_path / "in"], tmp_path / "out").tasks


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return Manifest(tmp_path / "out" / "manifest.jsonl")


def named(outcomes: Sequence[Outcome]) -> dict[str, str]:
    assert len({outcome.source for outcome in outcomes}) == len(outcomes), "nobody is reported twice"
    return {outcome.source.stem: outcome.status for outcome in outcomes}


def statuses(manifest: Manifest) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in manifest.path.read_text().splitlines()]
    return [(Path(line["source"]).stem, line["status"]) for line in lines if "source" in line]


def test_without_a_death_each_photo_is_given_out_once(tasks: tuple[Task, ...], manifest: Manifest) -> None:
    workers = Workers()
    made = list(drive(tasks, workers, manifest=manifest, settings={}))
    assert count(made) == {"restored": 7}
    assert workers.done == list("abcdefg") and all(not alone for _, alone in workers.given)
    assert all(outcome.output == task.output for outcome, task in zip(made, tasks, strict=True))


def test_a_death_loses_nothing_and_nothing_is_done_twice(tasks: tuple[Task, ...], manifest: Manifest) -> None:
    workers = Workers({"b": 1})
    made = named(list(drive(tasks, workers, manifest=manifest, settings={})))
    assert made == dict.fromkeys("abcdefg", "restored")
    assert sorted(workers.done) == list("abcdefg")
    assert workers.given[-3:] == [("a", True), ("b", True), ("c", True)], "those in hand, one at a time"
    told = statuses(manifest)
    assert sorted(name for name, status in told if status == "restored") == list("abcdefg")
    assert sorted(name for name, status in told if status == "lost") == list("abc")


def test_what_was_written_before_the_death_is_not_done_again(tasks: tuple[Task, ...], manifest: Manifest) -> None:
    tasks[0].output.parent.mkdir()
    tasks[0].output.write_text("old")
    tasks[0].record.write_text("old")
    workers = Workers({"b": 9}, late=True)
    made = list(drive(tasks, workers, manifest=manifest, settings={}))
    assert sorted(workers.done) == list("abcdefg")
    (b,) = (outcome for outcome in made if outcome.source.stem == "b")
    assert (b.status, b.faces, b.restored, b.warnings) == ("restored", 2, 1, ("face 0: soft",))


def test_a_killer_is_set_aside_and_its_neighbours_are_not(tasks: tuple[Task, ...], manifest: Manifest) -> None:
    workers = Workers({"e": 99})
    made = list(drive(tasks, workers, manifest=manifest, settings={}))
    assert named(made) == {**dict.fromkeys("abcdefg", "restored"), "e": "failed"}
    assert sorted(workers.done) == list("abcdfg")
    assert workers.deadly["e"] == 99 - MAX_TRIES
    (e,) = (outcome for outcome in made if outcome.status == "failed")
    assert "set aside" in e.message and "e.png" in e.message and e.is_problem and e.output is None
    assert manifest.read()[str(e.source)].set_aside


def test_a_run_resumes(tasks: tuple[Task, ...], manifest: Manifest) -> None:
    first = drive(tasks, Workers({"e": 99}), manifest=manifest, settings={"seed": 0})
    for _ in range(3):  # the run breaks off after three photos
        next(first)
    first.close()
    again = Workers({"e": 99})
    made = list(drive(tasks, again, manifest=manifest, settings={"seed": 0}, skip_existing=True))
    assert count(made) == {"skipped": 3, "restored": 3, "failed": 1}
    assert sorted(again.done) == list("dfg")
    third = Workers({"e": 99})
    made = list(drive(tasks, third, manifest=manifest, settings={"seed": 0}, skip_existing=True))
    assert count(made) == {"skipped": 6, "failed": 1} and not third.given, "the killer stays aside"
    other = Workers()
    made = list(drive(tasks, other, manifest=manifest, settings={"seed": 1}, skip_existing=True))
    assert count(made) == {"restored": 7}, "another seed is another run"


def test_a_changed_input_is_restored_again(tasks: tuple[Task, ...], manifest: Manifest) -> None:
    list(drive(tasks, Workers(), manifest=manifest, settings={}))
    tasks[2].source.write_text("other")
    again = Workers()
    made = list(drive(tasks, again, manifest=manifest, settings={}, skip_existing=True))
    assert again.done == ["c"] and count(made) == {"skipped": 6, "restored": 1}


def test_a_bad_picture_is_told_once_and_tried_again_by_the_next_run(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    tasks = make_plan([tmp_path / "bad.png"], tmp_path / "out").tasks
    for _ in range(2):
        workers = Workers()
        made = list(drive(tasks, workers, manifest=manifest, settings={}, skip_existing=True))
        assert [outcome.message for outcome in made] == ["is no picture"] and workers.given == [("bad", False)]
    assert statuses(manifest) == [("bad", "failed")] * 2


def test_an_entry_that_comes_twice_is_told_once(tasks: tuple[Task, ...], manifest: Manifest) -> None:
    workers = Workers()

    def twice(some: Sequence[Task], alone: bool) -> Iterator[Entry]:
        for entry in workers(some, alone):
            yield entry
            yield entry

    assert len(list(drive(tasks, twice, manifest=manifest, settings={}))) == 7
    assert len(statuses(manifest)) == 7
