"""The bundle that trains anywhere: what is in it, that it fits, and that what is in it trains."""

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save_file
from torch import Tensor, nn

from prefrestore.errors import ImageReadError, InvalidInputError
from prefrestore.metrics.lpips import LPIPS
from prefrestore.training.loop import Trainer
from prefrestore.training.schedule import LoopConfig


def noise(folder: Path, count: int, side: int = 96) -> list[Path]:
    """Pictures that do not compress away."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(folder)))
    paths = [folder / f"{folder.name}_{k}.png" for k in range(count)]
    for path in paths:
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(path)
    return paths


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The maker; LPIPS has random weights, since a stranger's machine has no others."""
    module = import_module("make")

    def lpips(scratch: Path) -> dict[str, Path]:
        save_file(LPIPS("alex", pretrained=False).half().state_dict(), scratch / "lpips.safetensors")
        return {"cache/lpips_alex.safetensors": scratch / "lpips.safetensors"}

    monkeypatch.setattr(module, "lpips", lpips)
    return module


def test_faces_fit_and_real_ones_come_first(tmp_path: Path) -> None:
    pictures = import_module("pictures")
    held_out, real, drawn = (noise(tmp_path / name, 4) for name in ("val", "real", "drawn"))
    best = sum(len(pictures.webp(path, pictures.QUALITIES[0])) + 10 for path in (*held_out, *real, *drawn))
    everything = pictures.fitting(held_out, real, drawn, best, 10)
    assert everything.quality == pictures.QUALITIES[0] and len(everything.files) == 12
    worst = sum(len(pictures.webp(path, pictures.QUALITIES[-1])) + 10 for path in (*held_out, *real))
    some = pictures.fitting(held_out, real, drawn, int(1.1 * worst), 10)
    assert some.quality < pictures.QUALITIES[0] and set(some.files) >= {*held_out, *real}
    assert sum(len(data) + 10 for data in some.files.values()) <= 1.1 * worst
    few = pictures.fitting(held_out, real, drawn, int(0.8 * worst), 10)
    assert few.quality == pictures.QUALITIES[-1] and set(few.files) > set(held_out) and not {*drawn} & {*few.files}


def test_large_pictures_are_shrunk_and_damaged_ones_named(tmp_path: Path) -> None:
    pictures = import_module("pictures")
    (path,) = noise(tmp_path / "large", 1, side=600)
    assert Image.open(io.BytesIO(pictures.webp(path, 50))).size == (512, 512)
    path.write_bytes(b"no picture")
    with pytest.raises(ImageReadError, match=path.name):
        pictures.webp(path, 50)


def test_a_bundle_that_does_not_fit_is_not_written(
    make: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise(tmp_path / "faces", 2)
    target = tmp_path / "bundle.tar"
    told = ["--data", str(tmp_path / "faces"), "-o", str(target), "--without-generator", "--limit", "12"]
    assert make.main(told) == 1
    assert "error:" in capsys.readouterr().err and not target.exists()


@pytest.mark.parametrize("more", [["--stages", "encoder,nothing"], ["--minutes", "0.1"]])
def test_a_slice_that_cannot_be_is_refused_in_a_sentence(
    more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))  # the program looks for what it needs beside itself first
    assert import_module("train").main(["--work", str(tmp_path), "--out", str(tmp_path), *more]) == 1
    assert capsys.readouterr().err.startswith("error: ") and not list(tmp_path.iterdir())


def test_a_damaged_table_is_named(make: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise(tmp_path / "faces", 1)
    (tmp_path / "faces" / "captions.jsonl").write_text("no json")
    target = tmp_path / "bundle.tar"
    assert make.main(["--data", str(tmp_path / "faces"), "-o", str(target), "--without-generator"]) == 1
    assert "captions.jsonl" in capsys.readouterr().err and not target.exists()


def test_results_are_few_small_files_that_make_a_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = import_module("results")
    monkeypatch.setattr(results, "LARGEST", 16384)
    work, out = tmp_path / "work", tmp_path / "out"
    weights = {"weight": torch.randn(100, 100), "count": torch.tensor(3)}
    for name in ("trained", "carried"):
        (work / name).mkdir(parents=True)
        save_file(weights, work / name / "model.safetensors")
        (work / name / "config.json").write_text("{}")
    (work / "trained" / "run.json").write_text(json.dumps({"stage": "encoder"}))
    noise(work / "runs" / "encoder" / "samples", 2)
    (work / "runs" / "encoder" / "log.jsonl").write_text('{"step": 10, "loss": 0.5}\n')
    (out / "weights.tar.05").parent.mkdir()
    (out / "weights.tar.05").write_bytes(b"of an earlier slice")
    paths = results.gather(work, out, ["a sentence"])
    assert sorted(paths) == sorted(out.iterdir()) and len(paths) <= results.FILES
    assert all(path.stat().st_size <= results.LARGEST for path in paths)
    joined = b"".join(path.read_bytes() for path in sorted(out.glob("weights.tar.*")))
    with tarfile.open(fileobj=io.BytesIO(joined)) as archive:
        assert {Path(name).parts[0] for name in archive.getnames()} == {"trained"}
        opened = archive.extractfile("trained/model.safetensors")
        assert opened is not None
        kept = load(opened.read())
    assert kept["weight"].dtype == torch.float16 and torch.equal(kept["weight"], weights["weight"].half())
    assert torch.equal(kept["count"], weights["count"])
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert rows == [{"report": "a sentence"}, {"stage": "encoder", "step": 10, "loss": 0.5}]
    save_file({"weight": torch.randn(300, 300)}, work / "trained" / "model.safetensors")
    with pytest.raises(InvalidInputError):
        results.gather(work, out, [])


def test_operations_of_a_step_by_hand(tmp_path: Path) -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4, bias=False)

        def forward(self, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
            return {"loss": self.layer(x).square().mean()}

    arithmetic = import_module("arithmetic")
    config = LoopConfig(output_dir=tmp_path, steps=5, batch_size=8, learning_rate=0.1)
    usual = Trainer.fit
    with arithmetic.counting() as found, pytest.raises(arithmetic._Counted):
        Trainer(Layer(), lambda step: {"x": torch.ones(8, 3)}, config).fit()
    # The product, and the gradient of the weights; that of the input is not asked for.
    assert found == [2 * (2 * 8 * 3 * 4)]
    assert Trainer.fit is usual


@pytest.mark.slow
def test_a_bundle_trains_every_stage_and_goes_on(make: ModuleType, tmp_path: Path) -> None:
    """At the tiny preset, in two calls: what is in the archive is all that they have."""
    noise(tmp_path / "faces", 6, side=64)
    (tmp_path / "faces" / "captions.jsonl").write_text('{"id": "faces_0", "caption": "A person."}\n')
    target = tmp_path / "bundle.tar"
    assert make.main(["--data", str(tmp_path / "faces"), "-o", str(target), "--without-generator"]) == 0
    assert target.stat().st_size <= make.LIMIT_MIB * 2**20
    with tarfile.open(target) as archive:
        archive.extractall(tmp_path, filter="data")
    with zipfile.ZipFile(tmp_path / "bundle" / "faces.zip") as archive:
        assert sum(name.endswith(".webp") for name in archive.namelist()) == 6
    command = [sys.executable, "train.py", "--preset", "tiny", "--scale", "1e-9", "--workers", "1", "--minutes", "60"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    environment.pop("PREFRESTORE_CACHE", None)

    def call(*more: str) -> str:
        done = subprocess.run(
            [*command, *more], cwd=tmp_path / "bundle", env=environment, capture_output=True, text=True, timeout=1500
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = call("--stages", "encoder,fidelity")
    work, out = tmp_path / "bundle" / "work", tmp_path / "bundle" / "out"
    assert all(f"{name}: step 2 of 2" in first for name in ("encoder", "fidelity")) and "% of the time" in first
    assert not (work / "preference").exists()
    second = call()
    assert "preference: step 2 of 2" in second and "encoder: step" not in second
    assert (work / "preference" / "run.json").is_file()
    assert {path.name for path in out.iterdir()} == {"weights.tar.00", "log.jsonl", "sheet.webp"}
    stages = {json.loads(line).get("stage") for line in (out / "log.jsonl").read_text().splitlines()}
    assert {"encoder", "fidelity", "preference", "octave"} <= stages
