"""Which caption belongs to which picture."""

import json
from pathlib import Path

import pytest

from prefrestore.errors import InvalidInputError
from prefrestore.restoration.captions import with_captions
from prefrestore.restoration.plan import Task, make_plan


@pytest.fixture
def tasks(tmp_path: Path) -> tuple[Task, ...]:
    for name in ("a.png", "b.png", "deep/a.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    return make_plan([tmp_path / "in"], tmp_path / "out").tasks


def captions(tasks: tuple[Task, ...], source: Path | str) -> dict[str, str | None]:
    found = with_captions(tasks, str(source))
    return {task.source.relative_to(task.source.parents[1]).as_posix(): task.caption for task in found}


ROWS = [{"image": "in/a.png", "caption": "A man."}, {"image": "in/deep/a.png", "caption": "A girl.", "more": 1}]


@pytest.mark.parametrize("lines", [False, True])
def test_a_file_by_paths(tasks: tuple[Task, ...], tmp_path: Path, lines: bool) -> None:
    file = tmp_path / "captions"
    file.write_text("\n".join(map(json.dumps, ROWS)) + "\n" if lines else json.dumps(ROWS, indent=1))
    assert captions(tasks, file) == {"in/a.png": "A man.", "in/b.png": None, "deep/a.png": "A girl."}


def test_a_file_by_bare_names(tasks: tuple[Task, ...], tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"image": "b.png", "caption": "Élodie."}\n')
    assert captions(tasks, tmp_path / "c.jsonl") == {"in/a.png": None, "in/b.png": "Élodie.", "deep/a.png": None}


def test_texts_beside_the_pictures(tasks: tuple[Task, ...], tmp_path: Path) -> None:
    (tmp_path / "in/deep/a.txt").write_text("A girl\nsmiles.\n")
    (tmp_path / "in/b.txt").write_text(" ")
    assert captions(tasks, "txt") == {"in/a.png": None, "in/b.png": None, "deep/a.png": "A girl smiles."}
    (tmp_path / "in/b.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InvalidInputError, match="b.txt"):
        with_captions(tasks, "txt")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[", "cannot be read"),
        ("[1]", "entry 1"),
        ('{"image": "a.png"}', "entry 1"),
        ('{"image": "x.png", "caption": "A man."}', "none of the pictures"),
        ("", "none of the pictures"),
        (json.dumps([ROWS[0], {**ROWS[0], "caption": "A girl."}]), "two captions"),
    ],
)
def test_a_file_that_does_not_fit(tasks: tuple[Task, ...], tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InvalidInputError, match=f"c.json.*{told}"):
        with_captions(tasks, str(tmp_path / "c.json"))
    with pytest.raises(InvalidInputError, match="nothing.json"):
        with_captions(tasks, str(tmp_path / "nothing.json"))
