import os
from pathlib import Path

import pytest

from prefrestore.errors import ImageWriteError
from prefrestore.files.atomic import written_beside


def test_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with written_beside(path) as part:
        part.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    with pytest.raises(RuntimeError), written_beside(path) as part:
        part.write_text("two")
        raise RuntimeError
    assert path.read_text() == "one"
    assert os.listdir(path.parent) == ["file.txt"]


def test_a_failure_of_the_file_system_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "full.txt"
    with (
        pytest.raises(ImageWriteError, match=r"cannot write .*full\.txt: No space left"),
        written_beside(path) as part,
    ):
        part.write_text("half")
        raise OSError(28, "No space left on device")
    assert os.listdir(tmp_path) == []


def test_the_system_s_mask_is_not_touched_while_a_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("every thread's mask was changed"))
    with written_beside(tmp_path / "a.txt") as part:
        part.write_text("whole")
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_the_file_has_ordinary_rights(tmp_path: Path) -> None:
    with written_beside(tmp_path / "a") as part:
        part.write_text("")
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
