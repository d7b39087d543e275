"""What `train assemble` may replace: its own earlier export, and nothing of the user's."""

from pathlib import Path

import pytest

from prefrestore.errors import InvalidInputError
from prefrestore.files.weights import write_hashes
from prefrestore.training import assemble


def export(folder: Path) -> Path:
    (folder / "part").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "part" / "config.json").write_text("{}")
    write_hashes(folder)
    return folder


def test_a_free_place_an_empty_folder_and_an_earlier_export_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "free", tmp_path / "empty", export(tmp_path / "old")):
        assemble.check_replaceable(folder)


@pytest.mark.parametrize("what", ["pictures", "added", "changed", "file", "link"])
def test_what_is_the_user_s_is_refused_and_stays(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "Pictures"
    if what == "pictures":
        folder.mkdir()
        (folder / "grandmother.jpg").write_bytes(b"picture")
    elif what == "file":
        folder.write_bytes(b"picture")
    elif what == "link":
        folder.symlink_to(export(tmp_path / "elsewhere"))
    else:
        export(folder)
        (folder / ("grandmother.jpg" if what == "added" else "part/config.json")).write_bytes(b"picture")
    before = sorted(path for path in tmp_path.rglob("*"))
    config = assemble.Config(data=(tmp_path,), output_dir=tmp_path / "work", destination=folder, preset="tiny")
    with pytest.raises(InvalidInputError, match="Pictures"):
        assemble.run(config)
    assert sorted(path for path in tmp_path.rglob("*")) == before
