"""``prefrestore ablate`` and the preference benchmark, with the tiny random model."""

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

from prefrestore.files.weights import write_hashes
from prefrestore.pipeline.build import load_preset_pipeline

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "empty"))
    monkeypatch.setitem(sys.modules, "dlib", None)


def test_ablations(prefrestore: Callable[..., Any], bench: Path, adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["ablate", "--lq", bench / "severe", "--reference", bench / "gt", "-o", out, "--preset", "tiny"]
    command += ["--device", "cpu", "--limit", "2", "--adapter", f"nft={adapter}"]
    parts = [word for part in ("semantic", "adapters", "fidelity", "solver") for word in ("--part", part)]
    ran = prefrestore([*command, *parts])
    assert ran.code == 0, ran.text
    rows = re.findall(r"^\| ([^|]+) \| 2 \|", (out / "ablation.md").read_text(), re.MULTILINE)
    assert rows == [
        "as shipped",
        "without the semantic branch",
        "adapter nft",
        "fidelity 0",
        "fidelity 0.5",
        "fidelity 1",
        "euler, 4 steps",
        "dpm, 4 steps",
    ]
    stored = json.loads((out / "ablation.json").read_text())
    values = {name: s["summary"]["psnr"]["mean"] for name, s in stored["sets"]["severe"]["systems"].items()}
    assert values["adapter nft"] != values["as shipped"] and values["fidelity 1"] != values["fidelity 0"]
    before = (out / "ablation.json").stat().st_mtime_ns
    again = prefrestore([*command, "--part", "guidance"])
    assert again.code == 0 and (out / "ablation.json").stat().st_mtime_ns > before
    added = json.loads((out / "ablation.json").read_text())["sets"]["severe"]["systems"]
    assert {"guidance 1", "guidance 2", "adapter nft"} <= set(added)
    wrongs = {"nft": "write NAME=DIR", "nft=nowhere": "is not a folder", f"a.b={adapter}": "letters"}
    for wrong, sentence in wrongs.items():
        ran = prefrestore([*command[:-1], wrong])
        assert ran.code == 1 and sentence in ran.text
    ran = prefrestore([*command, "--part", "everything"])
    assert ran.code == 1 and "there is no ablation 'everything'" in ran.text


def test_other_trainings_are_rows_of_the_ablation(prefrestore: Callable[..., Any], bench: Path, tmp_path: Path) -> None:
    folders = {}
    for name, seed in (("one-stage", 1), ("two-stages", 2)):
        other, generator = load_preset_pipeline("tiny"), torch.Generator().manual_seed(seed)
        torch.nn.init.normal_(other.transformer.proj_out.weight, std=0.3, generator=generator)
        folders[name] = tmp_path / name
        other.save_pretrained(folders[name])
        write_hashes(folders[name])
    out = tmp_path / "out"
    command = ["ablate", "--lq", bench / "severe", "--reference", bench / "gt", "-o", out, "--preset", "tiny"]
    command += ["--device", "cpu", "--limit", "2", "--samples", "1", "--part", "adapters"]
    for name, folder in folders.items():  # the second one joins the table of the first
        ran = prefrestore([*command, "--model", f"{name}={folder}"])
        assert ran.code == 0, ran.text
    stored = json.loads((out / "ablation.json").read_text())
    systems = stored["sets"]["severe"]["systems"]
    assert list(systems) == ["as shipped", "model one-stage", "model two-stages"]
    assert len({system["summary"]["psnr"]["mean"] for system in systems.values()}) == 3
    recorded = stored["settings"]["pipeline"]
    assert set(recorded) == {"pipeline", *folders}
    assert recorded["one-stage"]["sha256"] != recorded["two-stages"]["sha256"] != {}
    ran = prefrestore([*command, "--model", f"pipeline={folders['one-stage']}"])
    assert ran.code == 1 and "choose another one" in ran.text
    ran = prefrestore([*command, "--model", f"one-stage={folders['two-stages']}"])
    assert ran.code == 1 and "made with other settings" in ran.text


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """benchmarks/parts/spread.py as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("parts.spread")
    for name in [name for name in sys.modules if name.split(".")[0] == "parts"]:
        sys.modules.pop(name, None)


def test_the_table_of_the_preference_stage(
    benchmark: ModuleType,
    bench: Path,
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "p.json"
    command = ["preference.py spread", "--bench", str(bench), "--preset", "tiny", "--device", "cpu", "--json", str(out)]
    command += ["--adapter", f"nft={adapter}", "--seeds", "2", "--limit", "2", "--sheet", str(tmp_path / "s.png")]
    monkeypatch.setattr(sys, "argv", command)
    assert benchmark.main() == 0
    printed = capsys.readouterr().out
    assert printed.count("| base | 2 |") == 2 and printed.count("| against base | n |") == 2
    # A row a face, 128 px and 4 between; the input, and four seeds before and after.
    with Image.open(tmp_path / "s_mild_nft.png") as sheet:
        assert sheet.size == (128 + 2 * (8 + 4 * 128), 2 * 128 + 4)
    first = json.loads(out.read_text())
    monkeypatch.setattr(benchmark, "Restorer", _refuse)
    monkeypatch.setattr(sys, "argv", [word for word in command if word != "--sheet" and not word.endswith("s.png")])
    # Everything is there: the second run restores nothing.
    assert benchmark.main() == 0 and json.loads(out.read_text())["sets"] == first["sets"]
    monkeypatch.setattr(sys, "argv", [*command[:-2], "--seeds", "3"])
    assert benchmark.main() == 1 and "other settings (seeds)" in capsys.readouterr().err


class _refuse:
    def __init__(self, *_: Any, **__: Any) -> None: ...

    def system(self, variant: Any) -> Callable[..., Any]:
        def restore(*_: Any) -> Any:
            raise AssertionError(f"{variant.title} was run again")

        return restore


def test_changes_are_over_the_faces_that_both_rows_have(benchmark: ModuleType) -> None:
    assert benchmark.change("psnr", [{"psnr": 20.0}, {"psnr": None}], [{"psnr": 25.0}, {"psnr": 99.0}]) == "+25.0 %"
    assert benchmark.change("latent_entropy", [{"latent_entropy": -3.0}], [{"latent_entropy": -3.5}]) == "-0.500 nats"
    assert benchmark.change("fid", [{}], [{}]) == ""
