"""Photos in, restorations out."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prefrestore.cli import app


@pytest.mark.parametrize("name", ["aunt.png", "aunt.jpg", "aunt"])
def test_the_same_photo_options_and_seed_give_the_bytes_of_restore(
    client: Any, photo: bytes, tmp_path: Path, name: str
) -> None:
    source = tmp_path / "in" / name
    source.parent.mkdir()
    source.write_bytes(photo)
    command = ["restore", str(source), "-o", str(tmp_path / "out"), "--preset", "tiny", "--device", "cpu"]
    command += ["--seed", "5", "--fidelity", "0.2", "--scale", "2"]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    (written,) = (path for path in (tmp_path / "out").iterdir() if path.suffix != ".json")
    options = json.dumps({"seed": 5, "fidelity": 0.2, "scale": 2})
    answer = client.send(photo, name, options, Prefer="wait")
    assert answer.status_code == 200 and answer.headers["preference-applied"] == "wait"
    assert answer.content == written.read_bytes()
    id = answer.headers["location"].rpartition("/")[2]
    assert client.get(f"/restorations/{id}/photo").content == written.read_bytes()
    record, theirs = (
        client.get(f"/restorations/{id}/record").json(),
        json.loads(written.with_suffix(".json").read_text()),
    )
    assert theirs.pop("run")  # what the command line was asked for, for its --skip-existing
    assert record == theirs
    assert client.get(f"/restorations/{id}/original").content == photo
