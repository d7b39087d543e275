import csv
import json
from pathlib import Path

import pytest

from prefrestore.data.card import card, main
from prefrestore.errors import InvalidInputError


def write(root: Path) -> None:
    columns = ["id", "split", "source", "licence", "synthetic", "size", "person", "defect", "points"]
    rows = [
        ["a", "train", "studio", "CC0 1.0", "0", "16", "p1", "none", ""],
        ["b", "train", "studio", "CC0 1.0", "0", "16", "p1", "blurry", ""],
        ["c", "val", "drawn", "MIT", "1", "16", "p2", "none", ""],
    ]
    with (root / "faces.csv").open("w", newline="") as opened:
        csv.writer(opened).writerows([columns, *rows])
    entries = [{"id": "a", "gender": "woman"}, {"id": "b", "gender": "man"}, {"id": "c", "gender": "man"}]
    (root / "captions.jsonl").write_text("\n".join(map(json.dumps, entries)))


def test_the_tables(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "faces" / "synthetic").mkdir(parents=True)
    (tmp_path / "faces" / "synthetic" / "x.webp").write_bytes(b"")
    lines = card(tmp_path).splitlines()
    assert "| studio | CC0 1.0 | no | 1 | 1 | 1 | 0 |" in lines
    assert "| drawn | MIT | yes | 1 | 0 | 0 | 1 |" in lines
    assert "| together |  |  | 2 | 1 | 1 | 1 |" in lines
    assert "| gender | man | 50 % | 100 % |" in lines
    assert lines[-1] == "Drawn from the generator: 1 faces."


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("| source |")
    assert main([str(tmp_path / "nowhere")]) == 1
    assert "nowhere cannot be counted" in capsys.readouterr().err
    assert main([]) == 2
    (tmp_path / "captions.jsonl").write_text("{")
    with pytest.raises(InvalidInputError):
        card(tmp_path)
