"""What is read and what is written, decided before anything is opened."""

from pathlib import Path

import pytest

from prefrestore.errors import InvalidInputError
from prefrestore.restoration.plan import Plan, make_plan

KEPT = (".png", ".jpg", ".tif")


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def plan(tmp_path: Path, *inputs: Path | str) -> Plan:
    return make_plan(list(inputs), tmp_path / "out", kept_suffixes=KEPT)


def outputs(tmp_path: Path, made: Plan) -> list[str]:
    return [task.output.relative_to(tmp_path / "out").as_posix() for task in made.tasks]


def test_a_file_keeps_its_name_and_gets_a_record(tmp_path: Path) -> None:
    touch(tmp_path / "aunt.JPG")
    (task,) = plan(tmp_path, tmp_path / "aunt.JPG").tasks
    out = tmp_path / "out"
    assert (task.output, task.record) == (out / "aunt.JPG", out / "aunt.json")
    assert (task.compare, task.crops) == (out / "aunt_compare.png", out / "aunt_faces")


def test_a_format_that_cannot_be_written_becomes_png(tmp_path: Path) -> None:
    touch(tmp_path / "a.gif", tmp_path / "noname")
    assert outputs(tmp_path, plan(tmp_path, tmp_path / "a.gif", tmp_path / "noname")) == [
        "a.png",
        "noname.png",
    ]


def test_a_folder_keeps_its_structure_and_leaves_out_what_is_no_picture(tmp_path: Path) -> None:
    source = tmp_path / "in"
    touch(
        source / "b.png",
        source / "x/y/a.jpg",
        source / "notes.txt",
        source / ".hidden.png",
        source / ".git/c.png",
    )
    assert outputs(tmp_path, plan(tmp_path, source)) == ["b.png", "x/y/a.jpg"]


def test_a_glob_crosses_folders(tmp_path: Path) -> None:
    touch(tmp_path / "in/a.png", tmp_path / "in/x/b.png", tmp_path / "in/x/c.txt")
    assert outputs(tmp_path, plan(tmp_path, str(tmp_path / "in/**/*.png"))) == ["a.png", "b.png"]


def test_a_name_with_brackets_is_a_file_first(tmp_path: Path) -> None:
    touch(tmp_path / "a[1].png", tmp_path / "a1.png")
    assert outputs(tmp_path, plan(tmp_path, tmp_path / "a[1].png")) == ["a[1].png"]


def test_one_picture_named_twice_is_done_once(tmp_path: Path) -> None:
    touch(tmp_path / "in/a.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "in/a.png")
    made = plan(tmp_path, tmp_path / "in/a.png", tmp_path / "in", str(tmp_path / "in/*.png"), tmp_path / "link.png")
    assert outputs(tmp_path, made) == ["a.png"]


def test_equal_names_get_numbers_and_no_file_is_written_twice(tmp_path: Path) -> None:
    names = ["1/a.jpg", "2/A.JPG", "3/a.jpg", "4/a-2.jpg", "5/a.gif", "6/a.png"]
    touch(*(tmp_path / name for name in names))
    made = plan(tmp_path, *(tmp_path / name for name in names))
    assert outputs(tmp_path, made) == ["a.jpg", "A-3.JPG", "a-4.jpg", "a-2.jpg", "a.png", "a-2.png"]
    written = [str(path).lower() for t in made.tasks for path in (t.output, t.record, t.compare, t.crops)]
    assert len(set(written)) == len(written)


def test_records_of_names_that_differ_in_the_suffix(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg", tmp_path / "a.png", tmp_path / "b.png")
    made = plan(tmp_path, tmp_path / "a.jpg", tmp_path / "a.png", tmp_path / "b.png")
    assert [task.record.name for task in made.tasks] == ["a.jpg.json", "a.png.json", "b.json"]


def test_the_output_is_not_its_own_input(tmp_path: Path) -> None:
    touch(tmp_path / "out/a.png", tmp_path / "b.png")
    made = make_plan([tmp_path], tmp_path / "out", kept_suffixes=KEPT)
    assert [task.source.name for task in made.tasks] == ["b.png"]


def test_an_output_never_replaces_an_input(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "b.gif")
    made = make_plan([tmp_path / "a.png", tmp_path / "b.gif"], tmp_path, kept_suffixes=KEPT)
    assert [task.output.name for task in made.tasks] == ["b.png"]
    ((_, sentence),) = made.failed
    assert "a.png" in sentence and "replace" in sentence


@pytest.mark.parametrize("named", ["gone.png", "*.xyz", "empty"])
def test_what_is_not_there_is_named(tmp_path: Path, named: str) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "a.png")
    made = plan(tmp_path, str(tmp_path / named), tmp_path / "a.png")
    assert outputs(tmp_path, made) == ["a.png"]
    ((_, sentence),) = made.failed
    assert named in sentence


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "out")
    with pytest.raises(InvalidInputError, match="out is a file"):
        plan(tmp_path, tmp_path / "a.png")
