"""The tutorial "Bring the published weights": every command in it, run in order on tiny folders of that format."""

import dataclasses
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pipeline" / "published"))

import tiny_checkpoint
import training_folders

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "paper-scale.md").read_text()
# What makes a command tiny, by how it begins.
TINY = {
    "convert": "--architecture architecture.json",
    "restore": "--preset tiny-paper.json",
    "train semantic": "--preset tiny-paper.json --steps 3 --validation-faces 2",
    "train fidelity": "--preset tiny-paper.json --steps 3",
    "train preference": "--preset tiny-paper.json --steps 3 --pairs 8 --batch-size 2 --group-size 2 --rank 2 --alpha 4 "
    "--rewards psnr=1 --tracker none",
    "train all": "--preset tiny-paper.json --steps-scale 1e-9",
}


def commands() -> list[str]:
    """Those before the section that says what was tested, lines that go on joined."""
    told, _, _ = PAGE.partition("**Tested**")
    return [c.replace("\\\n", " ") for c in re.findall(r"^\$ prefrestore ((?:.*\\\n)*.*)$", told, re.MULTILINE)]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the tutorial begins with: published files as a training leaves them, photos and faces."""
    data = pytest.importorskip("skimage.data")
    tiny = tiny_checkpoint.write_all(tmp_path / "files")
    shutil.move(tiny.assembled, tmp_path / "published")
    training_folders.everything(tmp_path / "published")
    training_folders.rewrite(tmp_path / "published", {}, 4)
    shutil.copytree(tiny.lora, tmp_path / "elsewhere" / "lora")
    shutil.move(tiny.ta_tok, tmp_path / "ta_tok.pth")
    shutil.move(tiny.sana, tmp_path / "SANA-folder")
    (tmp_path / "tiny-paper.json").write_text(json.dumps(tiny_checkpoint.preset()))
    (tmp_path / "architecture.json").write_text(json.dumps(dataclasses.asdict(tiny_checkpoint.ARCHITECTURE)))
    (tmp_path / "rewards.json").write_text("{}")
    whole = Image.fromarray(data.astronaut())
    whole.crop((96, 0, 352, 256)).save(tmp_path / "portrait.jpg")
    face = whole.crop((160, 60, 288, 188))
    face.save(tmp_path / "face.png")
    for folder in ("photos", "FACES"):
        (tmp_path / folder).mkdir()
    (tmp_path / "captions.jsonl").write_text('{"image": "photos/a.png", "caption": "A woman smiles."}\n')
    for name in "ab":
        whole.crop((96, 0, 352, 256)).save(tmp_path / "photos" / f"{name}.png")
    for k in range(4):
        Image.fromarray(np.roll(np.asarray(face.resize((32, 32))), k, axis=1)).save(tmp_path / "FACES" / f"{k}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.slow
def test_every_command_runs_in_order(desk: Path, prefrestore: Callable[..., Any]) -> None:
    typed = commands()
    assert [line.split()[0] for line in typed].count("convert") == 5 and len(typed) == 14
    for line in typed:
        name = next(known for known in TINY if line.startswith(known))
        ran = prefrestore([*shlex.split(line), *TINY[name].split()])
        assert ran.code == 0, f"{line}: {ran.text}"
    ours, theirs = (np.asarray(Image.open(desk / f"by-{name}" / "face.png"), int) for name in ("pipeline", "assembled"))
    assert np.abs(ours - theirs).max() <= 1
    record = json.loads((desk / "by-assembled" / "face.json").read_text())
    assert "preference/adapter_model.safetensors" in record["weights"]
    for step in ("step1", "step2"):
        assert (desk / step / "pipeline" / "model_index.json").is_file()
        assert (desk / step / "assembled" / "model.safetensors.index.json").is_file()
    assert (desk / "finished" / "model_index.json").is_file()
    assert {path.name for path in (desk / "restored").glob("*.*g")} == {"portrait.jpg", "face.png", "a.png", "b.png"}
