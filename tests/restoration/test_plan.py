"""What is read and what is written, decided before anything is opened."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from prefrestore.errors import InvalidInputError
from prefrestore.pictures.formats import has_jpeg_xl
from prefrestore.restoration import plan as planning
from prefrestore.restoration.plan import Plan, make_plan


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def plan(tmp_path: Path, *inputs: Path | str) -> Plan:
    return make_plan(list(inputs), tmp_path / "out")


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


def record(path: Path, source: str, **files: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {"files": files} if files else {}
    path.write_text(json.dumps({"record": 1, "prefrestore": "0", "input": {"name": source}, "faces": [], **known}))


def sources(made: Plan, folder: Path) -> list[str]:
    return [task.source.relative_to(folder).as_posix() for task in made.tasks]


def test_the_output_is_not_its_own_input(tmp_path: Path) -> None:
    touch(tmp_path / "out/a.png", tmp_path / "out/new.png", tmp_path / "b.png", tmp_path / "c.png")
    record(tmp_path / "out/a.json", "a.png", output="a.png")
    made = make_plan([tmp_path], tmp_path / "out")
    assert sources(made, tmp_path) == ["b.png", "c.png", "out/new.png"], "only what a record names is left out"
    assert made.notes[0].endswith(": 1")


@pytest.mark.parametrize("up", [0, 1])
def test_an_output_at_or_above_the_input_folder(tmp_path: Path, up: int) -> None:
    album = tmp_path / "photos" / "album"
    touch(album / "a.png", album / "b.gif")
    made = make_plan([album], [album, album.parent][up])
    if up:
        assert [task.output.name for task in made.tasks] == ["a.png", "b.png"] and not made.failed
    else:
        assert [task.output.name for task in made.tasks] == ["b.png"]
        ((_, sentence),) = made.failed
        assert "a.png" in sentence and "itself" in sentence


@pytest.mark.parametrize("named", [True, False], ids=["record names its files", "older record"])
def test_what_earlier_runs_wrote_beside_their_pictures_is_no_input(tmp_path: Path, named: bool) -> None:
    old = tmp_path / "old"
    touch(old / "a.png", old / "a_compare.png", old / "a_faces/0_after.png", old / "a.uncertainty.png")
    touch(old / "my_compare.png")
    beside = {"compare": "a_compare.png", "crops": "a_faces", "uncertainty": "a.uncertainty.png"}
    record(old / "a.json", "a.jp2", **({"output": "a.png", **beside} if named else {}))
    made = make_plan([old], tmp_path / "out")
    assert sources(made, old) == ["a.png", "my_compare.png"], "a restored picture may be restored once more"
    made = make_plan([old], old)
    assert sources(made, old) == [] and ["my_compare.png" in sentence for _, sentence in made.failed] == [True]


def test_a_stranger_s_json_names_nothing(tmp_path: Path) -> None:
    touch(tmp_path / "in/a.png", tmp_path / "in/b.png")
    (tmp_path / "in/a.json").write_text(json.dumps({"files": {"output": "a.png"}}))
    (tmp_path / "in/b.json").write_text('{"record": 1, "prefrestore": "0", "input": [')
    assert sources(make_plan([tmp_path / "in"], tmp_path), tmp_path / "in") == ["a.png", "b.png"]


def test_every_kind_that_is_read_is_found_and_the_rest_is_counted(tmp_path: Path) -> None:
    read = ["a.heic", "b.HEIF", "c.jpe", "d.mpo", "e.j2k", "f.psd", "g.avif", "h.jpx", "i.pbm", "j.jxl"]
    touch(*(tmp_path / "in" / name for name in [*read, "1.cr2", "2.CR2", "3.svg", "notes.txt", "film.mp4"]))
    made = plan(tmp_path, tmp_path / "in")
    assert sources(made, tmp_path / "in") == (read if has_jpeg_xl() else read[:-1])
    (note,) = made.notes
    assert "2 .cr2" in note and "1 .svg" in note and "txt" not in note and "mp4" not in note
    assert has_jpeg_xl() or "jxl" in note
    suffixes = {task.source.name: task.output.suffix for task in made.tasks}
    assert suffixes["a.heic"] == suffixes["b.HEIF"] == suffixes["d.mpo"] == ".jpg"
    assert suffixes["c.jpe"] == ".jpe" and suffixes["g.avif"] == ".avif"
    assert suffixes["e.j2k"] == suffixes["f.psd"] == suffixes["i.pbm"] == ".png"


def test_a_pipe_in_a_folder_is_named_and_not_waited_for(tmp_path: Path) -> None:
    touch(tmp_path / "in/a.png")
    os.mkfifo(tmp_path / "in/pipe.png")
    made = plan(tmp_path, tmp_path / "in")
    assert sources(made, tmp_path / "in") == ["a.png"]
    assert "pipe.png" in made.failed[0][1]


def test_an_empty_name_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match="empty"):
        plan(tmp_path, "")


def test_format_and_suffix_of_the_outputs(tmp_path: Path) -> None:
    touch(tmp_path / "in/a.png", tmp_path / "in/a.tif")
    made = make_plan([tmp_path / "in"], tmp_path / "out", kind="webp", name_suffix="_new")
    assert outputs(tmp_path, made) == ["a_new.webp", "a_new-2.webp"]
    assert [task.record.name for task in made.tasks] == ["a_new.json", "a_new-2.json"]
    made = make_plan([tmp_path / "in"], tmp_path / "in", name_suffix="_new")
    assert [task.output.name for task in made.tasks] == ["a_new.png", "a_new.tif"] and not made.failed


def test_an_output_that_is_one_file(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "b.png")
    (task,) = make_plan([tmp_path / "a.png"], tmp_path / "new" / "x.jpg").tasks
    assert (task.output, task.record) == (tmp_path / "new/x.jpg", tmp_path / "new/x.json")
    with pytest.raises(InvalidInputError, match="one file"):
        make_plan([tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "x.jpg")
    with pytest.raises(InvalidInputError, match="--suffix"):
        make_plan([tmp_path / "a.png"], tmp_path / "x.jpg", name_suffix="_new")
    assert "itself" in make_plan([tmp_path / "a.png"], tmp_path / "a.png").failed[0][1]


def test_an_output_never_replaces_an_input(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "b.gif")
    made = make_plan([tmp_path / "a.png", tmp_path / "b.gif"], tmp_path)
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


def test_equal_names_cost_a_few_looks_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 16_000
    pictures = {str(k): (tmp_path / str(k) / "a.jpg", Path("a.jpg")) for k in range(count)}
    monkeypatch.setattr(planning._Search, "add", lambda search, _: search.found.update(pictures))
    looks = 0

    def key(path: Path, plain: Callable[[Path], str] = planning._key) -> str:
        nonlocal looks
        looks += 1
        # Quadratic code would look at some 128 million names: nobody has to wait for that.
        assert looks < 40 * count
        return plain(path)

    monkeypatch.setattr(planning, "_key", key)
    made = plan(tmp_path, tmp_path)
    assert outputs(tmp_path, made)[-1] == f"a-{count}.jpg"
    assert made.tasks[-1].record.name == f"a-{count}.json"
