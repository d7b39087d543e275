"""The tutorial "From preferences to a better restorer": every command in it, run in order at tiny scale."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

PAGE = Path(__file__).resolve().parents[2] / "docs" / "preference.md"
# What makes a command quick, and what a machine without measuring weights does without.
QUICK = {
    "restore": "--preset tiny",
    "degrade": "--size 64",
    "preference fit": "--steps 2 --batch-size 2",
    "train preference": "--preset tiny --steps 2 --pairs 8 --batch-size 2 --group-size 2 --rank 2 --alpha 4 "
    "--mixed-precision no --tracker none",
    "ablate": "--preset tiny --without lpips_alex --without lpips_vgg --without landmarks --limit 1",
}


def _commands() -> list[str]:
    return re.findall(r"^\$ prefrestore (.*)$", PAGE.read_text(), re.MULTILINE)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with aligned faces and the judgements of the tutorial."""
    face = cv2.cvtColor(astronaut()[0:256, 100:356], cv2.COLOR_RGB2BGR)
    (tmp_path / "faces").mkdir()
    for number, name in enumerate(("ann", "ben", "cleo", "dan")):
        cv2.imwrite(str(tmp_path / "faces" / f"{name}.png"), np.roll(face, 4 * number, axis=1))
    line = json.loads(re.search(r"```json\n(.*?)\n```", PAGE.read_text(), re.DOTALL)[1])
    names = ("ann", "ben", "cleo", "dan")
    own = [{"first": f"first/{n}.png", "second": f"second/{n}.png", "who": f"judge-{k}"} for k, n in enumerate(names)]
    made = [line | row for row in own]
    (tmp_path / "judgements.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_every_command_runs_in_order(desk: Path, prefrestore: Callable[..., Any]) -> None:
    commands = _commands()
    assert len(commands) >= 8
    for command in commands:
        words = shlex.split(command)
        name = next(known for known in (*QUICK, "preference score") if command.startswith(known))
        ran = prefrestore([*words, *QUICK.get(name, "").split()])
        assert ran.code == 0, f"{command}: {ran.text}"
    assert (desk / "work" / "preference" / "adapter_model.safetensors").is_file()
    assert (desk / "third" / "ann.png").is_file() and (desk / "compared" / "ablation.md").is_file()
    records = [json.loads((desk / folder / "ann.json").read_text()) for folder in ("third", "base")]
    adapters = ["preference/adapter_model.safetensors" in record["weights"] for record in records]
    assert adapters == [True, False]
