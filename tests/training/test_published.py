"""Steps 1 to 3 on the published classes at tiny widths, from each kind of folder."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from prefrestore.pipeline.pipeline import PrefRestorePipeline

ROOT = Path(__file__).resolve().parents[1]


def module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    return module_at(ROOT / "pipeline/published/tiny_checkpoint.py")


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    return module_at(Path(__file__).with_name("published_run.py"))


@pytest.fixture(scope="module")
def tiny(writer: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return writer.write_all(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def preset(writer: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A preset of the published classes with the widths of the tiny files, by its path."""
    values = json.loads((ROOT.parent / "src/prefrestore/pipeline/configs/paper.json").read_text())
    parts = values["components"]
    for name, arguments in (
        ("image_tokenizer", writer.TOKENIZER | {"select_layer": -2, "codebook_size": writer.CODES, "code_dim": 12}),
        ("text_tokenizer", {"text_vocabulary": 300, "max_length": 400}),
        ("language_model", {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
                            "tie_word_embeddings": False}),
        ("autoencoder", writer.AUTOENCODER),
        ("transformer", writer.TRANSFORMER | {"qk_norm": "rms_norm_across_heads"}),
        ("connectors", {"query_features": 32, "latent_features": 16, "condition_features": 24}),
    ):  # fmt: skip
        parts[name] = {"class": parts[name]["class"], **arguments}
    path = tmp_path_factory.mktemp("preset") / "tiny-paper.json"
    path.write_text(json.dumps(values | {"face_size": writer.FACE, "name": "tiny-paper"}))
    return str(path)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    for k in range(4):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{k}.png"), cv2.resize(coarse, (32, 32), interpolation=cv2.INTER_CUBIC))
    return folder


def losses(output: Path, stage: str) -> list[dict[str, float]]:
    rows = (output / "runs" / stage / "log.jsonl").read_text().splitlines()
    return [json.loads(row) for row in rows]


def restored(folder: Path, side: int = 32, **options: Any) -> torch.Tensor:
    pipeline = PrefRestorePipeline.from_pretrained(folder, **options)
    face = np.random.default_rng(5).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return pipeline(face, output_type="pt", num_inference_steps=2).images


def changed(before: Path, after: Path) -> set[str]:
    """Names of the assembled model's tensors that differ; both folders have the same."""
    held = [
        {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
        for folder in (before, after)
    ]
    return {
        key for key in held[1] if key not in held[0] or not torch.equal(held[0][key], held[1][key].to(held[0][key]))
    }


@pytest.fixture(scope="module")
def first(tiny: Any, preset: str, faces: Path, runner: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Step 1 from an assembled folder as training leaves it: sharded, with the frozen encoder's copy."""
    root = tmp_path_factory.mktemp("first")
    model = Path(shutil.copytree(tiny.assembled, root / "model"))
    runner.run("semantic", faces, preset, model, root / "out")
    return root


def test_step_1_trains_what_it_should_and_writes_both_layouts(first: Path, writer: ModuleType) -> None:
    (row,) = losses(first / "out", "semantic")
    assert row["step"] == 3 and row["loss"] == pytest.approx(row["cross_entropy"] + row["flow"], rel=1e-4)
    names = changed(first / "model", first / "out" / "assembled")
    kinds = ("model.sana.caption_projection", "model.diffusion_connector", "lm_head", "model.embed_tokens", "model.layers",
             "model.norm", "model.vae_connector.3.weight")  # fmt: skip
    assert names and not [name for name in names if not name.startswith(kinds)]
    for kind in kinds:
        assert any(name.startswith(kind) for name in names), kind
    # What only the published loader needs is still there.
    state = {k for file in (first / "out/assembled").glob("*.safetensors") for k in load_file(file)}
    assert "model.vision_tower.vision_tower.decoder.blocks.0.attn.weight" in state
    architecture = writer.ARCHITECTURE
    ours = restored(first / "out" / "pipeline")
    theirs = restored(first / "out" / "assembled", architecture=architecture)
    torch.testing.assert_close(ours, theirs)
    assert not torch.equal(ours, restored(first / "model", architecture=architecture))


def test_step_2_goes_on_from_step_1(
    first: Path, preset: str, faces: Path, runner: ModuleType, writer: ModuleType, tmp_path: Path
) -> None:
    model = first / "out" / "assembled"
    trainer = runner.run("fidelity", faces, preset, model, tmp_path / "out")
    (row,) = losses(tmp_path / "out", "fidelity")
    assert row["loss"] == pytest.approx(row["flow"] + row["latent"], rel=1e-4)
    names = changed(model, tmp_path / "out" / "assembled")
    kinds = (
        "model.sana.transformer_blocks.",
        "model.vae_connector.0",
        "model.vae_connector.2",
        "model.sana_vae.encoder.",
    )
    assert names and not [name for name in names if not name.startswith(kinds)]
    for kind in kinds:
        assert any(name.startswith(kind) for name in names), kind
    torch.testing.assert_close(
        restored(tmp_path / "out/pipeline"), restored(tmp_path / "out/assembled", architecture=writer.ARCHITECTURE)
    )
    assert trainer.step == 3


def test_a_stopped_run_resumes_to_the_same_losses(
    tiny: Any, preset: str, faces: Path, runner: ModuleType, tmp_path: Path
) -> None:
    whole = runner.run("fidelity", faces, preset, tiny.assembled, tmp_path / "whole")
    cut = runner.settings("fidelity", faces, preset, tiny.assembled, tmp_path / "cut", max_minutes=0)
    from prefrestore.training import fidelity

    assert fidelity.run(cut, log=lambda line: None).step == 1
    resumed = runner.run("fidelity", faces, preset, tiny.assembled, tmp_path / "cut")
    assert resumed.step == 3
    for name, value in whole.trained.items():
        torch.testing.assert_close(resumed.trained[name], value, rtol=1e-5, atol=1e-7)
