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
    trained = ("model.sana.caption_projection", "model.diffusion_connector", "lm_head", "model.embed_tokens")
    kinds = (*trained, "model.layers", "model.norm", "model.vae_connector.3.weight")
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


def test_step_1_from_ta_tok_and_sana(
    tiny: Any, preset: str, faces: Path, runner: ModuleType, writer: ModuleType, tmp_path: Path
) -> None:
    """The language model, its tokenizer and the connectors are new; the published details are asked for."""
    model = tmp_path / "parts"
    shutil.copytree(tiny.sana, model / "SANA")
    state = torch.load(tiny.ta_tok, weights_only=True)
    state["model"]["sd"] |= {
        "teacher.a": torch.ones(2),
        "bottleneck.regularizer.stochastic_temperature_inv": torch.ones(1),
    }
    torch.save(state, model / "ta_tok.pth")
    trainer = runner.run("semantic", faces, preset, model, tmp_path / "out", reference=True)
    (row,) = losses(tmp_path / "out", "semantic")
    assert trainer.step == 3 and np.isfinite(row["loss"]) and row["flow"] > 0
    kept = {k for file in (tmp_path / "out/assembled").glob("*.safetensors") for k in load_file(file)}
    assert not [key for key in kept if "teacher" in key]
    torch.testing.assert_close(
        restored(tmp_path / "out/pipeline"), restored(tmp_path / "out/assembled", architecture=writer.ARCHITECTURE)
    )


def test_folders_that_cannot_be_trained_from(
    tiny: Any, preset: str, faces: Path, runner: ModuleType, tmp_path: Path
) -> None:
    from prefrestore.errors import WeightsError

    broken = Path(shutil.copytree(tiny.assembled, tmp_path / "broken"))
    shard = sorted(broken.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    (tmp_path / "empty").mkdir()
    for model, match in ((broken, "truncated"), (tmp_path / "empty", "neither"), (tmp_path / "no", "no such folder")):
        for stage in ("semantic", "fidelity"):
            with pytest.raises(WeightsError, match=match):
                runner.run(stage, faces, preset, model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_last_positions_end_with_the_closing_of_the_chat(tiny: Any, preset: str, writer: ModuleType) -> None:
    """The reference's queries: of the whole sequence with its end, the last N+1 states."""
    from prefrestore.models.semantic.instruction import ImageVocabulary, build_chats
    from prefrestore.models.semantic.integrator import teacher_forced
    from prefrestore.training.published import closing_ids

    pipeline = PrefRestorePipeline.from_pretrained(tiny.assembled, architecture=writer.ARCHITECTURE)
    tokens = torch.arange(32).reshape(2, 16)
    chats = build_chats(pipeline.text_tokenizer, tokens.flip(1), ["A man.", None])
    vocabulary, closing = ImageVocabulary.of(pipeline.text_tokenizer), closing_ids(pipeline.text_tokenizer)
    assert pipeline.text_tokenizer.decode(closing) == "<|im_end|>\n"
    model = pipeline.language_model
    with torch.no_grad():
        told = teacher_forced(model, chats, tokens, vocabulary, closing)
        usual = teacher_forced(model, chats, tokens, vocabulary)
        tail = torch.tensor([[vocabulary.end, *closing]]).expand(2, -1)
        ids = torch.cat([chats.input_ids, vocabulary.to_ids(tokens), tail], 1)
        row = ids[0:1]  # the captioned chat is the longer one: no padding
        assert bool(chats.mask[0].all())
        states = model.model(input_ids=row).last_hidden_state
        logits = model.lm_head(states)[0]
    torch.testing.assert_close(told.queries[0], states[0, -17:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(usual.queries[0], states[0, -17 - len(tail[0]) : -len(tail[0])], atol=1e-4, rtol=1e-4)
    start = row.shape[1] - 16 - len(tail[0])
    by_hand = torch.nn.functional.cross_entropy(logits[start - 1 : -1], row[0, start:], reduction="none")
    torch.testing.assert_close(told.image_loss[0], by_hand[:16], atol=1e-4, rtol=1e-4)


def test_step_3_on_the_published_classes_in_both_ways(
    tiny: Any, preset: str, faces: Path, writer: ModuleType, tmp_path: Path
) -> None:
    from prefrestore.preference import trainer as preference

    def run(output: Path, **more: Any) -> Any:
        config = preference.Config(
            data=(faces,), output_dir=output, preset=preset, model=tiny.assembled, rewards="psnr=1",
            held_out="none", pairs=4, steps=3, batch_size=2, micro_batches=2, group_size=2, rank=2, alpha=4,
            degradation="paper", mixed_precision="no", sample_every=100, held_out_faces=2, tracker="none", **more,
        )  # fmt: skip
        return preference.run(config, log=lambda line: None)

    usual = run(tmp_path / "usual", sample_steps=3)
    reference = run(tmp_path / "reference", sample_steps=4, reference=True)
    assert usual.step == reference.step == 3
    assert run(tmp_path / "usual", sample_steps=3).step == 3
    for name in ("usual", "reference"):
        lora = tmp_path / name / "preference"
        aligned = restored(tiny.assembled, architecture=writer.ARCHITECTURE, lora=lora)
        base = restored(tiny.assembled, architecture=writer.ARCHITECTURE)
        assert not torch.equal(aligned, base)


def test_the_reference_takes_its_times_from_the_rollouts_steps() -> None:
    from types import SimpleNamespace

    from prefrestore.preference.policy import NftObjective

    objective = SimpleNamespace(settings=SimpleNamespace(reference=True, sample_steps=30, time_exponent=1.0))
    drawn = NftObjective.times(objective, 60, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    # Rollouts visit 1, 29/30, ..., 2/30 and end at 1/30: 29 times, each twice before any comes a third time.
    wanted = torch.tensor([1 - i / 30 for i in range(29)])
    torch.testing.assert_close(drawn[:29].sort(descending=True).values, wanted)
    torch.testing.assert_close(drawn[29:58].sort(descending=True).values, wanted)
    assert not torch.equal(drawn[:29], drawn[29:58])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "config"),
    [("semantic", "cpu_gloo"), ("fidelity", "cpu_gloo"), ("semantic", "fsdp"), ("fidelity", "fsdp")],
)
def test_two_processes_and_sharding_give_the_losses_of_one(
    tiny: Any, preset: str, faces: Path, runner: ModuleType, writer: ModuleType, tmp_path: Path, stage: str, config: str
) -> None:
    import os
    import subprocess
    from importlib.resources import files

    launch = Path(str(files("prefrestore"))) / "training/accelerate" / f"{config}.yaml"
    one = runner.run(stage, faces, preset, tiny.assembled, tmp_path / "one")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(launch), "--num_processes", "2"]
    command += ["--main_process_port", "0", str(Path(__file__).with_name("published_run.py")), stage]
    command += [str(part) for part in (faces, preset, tiny.assembled, tmp_path / "two")]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert one.step == 3
    (ours,), (theirs,) = losses(tmp_path / "one", stage), losses(tmp_path / "two", stage)
    for key in ("loss", "flow", "gradient_norm"):
        assert theirs[key] == pytest.approx(ours[key], rel=1e-4), key
    torch.testing.assert_close(
        restored(tmp_path / "two/pipeline"), restored(tmp_path / "one/pipeline"), atol=1e-4, rtol=1e-4
    )
