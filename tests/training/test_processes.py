"""One run in several processes: the same losses, checkpoints that move, and what is shared out or refused."""

import importlib.util
import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import is_deepspeed_available
from safetensors import safe_open
from safetensors.torch import load_file

from prefrestore.errors import InvalidInputError
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.training import fidelity, semantic
from prefrestore.training.deepspeed import check_deepspeed
from prefrestore.training.schedule import step_generator

CONFIGS = Path(str(files("prefrestore"))) / "training" / "accelerate"
WEIGHTS = "diffusion_pytorch_model.safetensors"
needs_deepspeed = pytest.mark.skipif(not is_deepspeed_available(), reason="the extra deepspeed is not installed")
SCRIPT = Path(__file__).with_name("toy_run.py")


@pytest.fixture(scope="module")
def toy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("toy_run", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def launch(config: str, *arguments: str, **environment: str) -> str:
    """``accelerate launch`` with two processes of one thread; returns what they print."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / config)]
    command += ["--num_processes", "2", "--main_process_port", "0", *arguments]
    # Without a GPU to see, also where there is one: these are tests of processes.
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, env=os.environ | threads | environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def column(rows: list[dict[str, float]], key: str = "loss") -> list[float]:
    return [row[key] for row in rows]


def test_two_processes_train_as_one_and_their_checkpoint_goes_on_in_one(toy: ModuleType, tmp_path: Path) -> None:
    launch("cpu_gloo.yaml", str(SCRIPT), str(tmp_path / "two"))
    first, second = (json.loads((tmp_path / "two" / f"history_{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    one = toy.toy_trainer(tmp_path / "one", toy.MICRO_BATCHES).fit()
    for key in ("loss", "worst", "gradient_norm"):
        assert column(first, key) == pytest.approx(column(one, key), rel=1e-5), key
    with safe_open(tmp_path / "two/whole/state.safetensors", "pt") as file:
        assert file.metadata()["written_by"] == "MULTI_CPU, 2 processes"
    rows = (tmp_path / "two" / "whole" / "log.jsonl").read_text().splitlines()
    assert len(rows) == 1  # one process writes
    # The checkpoint says that a step has two micro-batches; nobody has to repeat it.
    resumed = toy.toy_trainer(tmp_path / "two" / "cut")
    assert resumed.step == toy.CUT and resumed.micro_batches == 2
    assert column(resumed.fit()) == pytest.approx(column(one)[toy.CUT :], rel=1e-5)
    ours, theirs = (load_file(tmp_path / name / "state.safetensors") for name in ("one", "two/whole"))
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(theirs[key], value, rtol=1e-4, atol=1e-6)


def test_a_step_is_the_mean_of_its_micro_batches(toy: ModuleType, tmp_path: Path) -> None:
    trainer = toy.toy_trainer(tmp_path, 2)
    halves = [toy.toy_batch(0), toy.toy_batch(1)]
    expected = []
    for part, half in enumerate(halves):
        expected.append(trainer.objective(**half, generator=step_generator(0, 0, part))["loss"])
    (sum(expected) / 2).backward()
    by_hand = torch.stack([p.grad.norm() for p in trainer.trained.values() if p.grad is not None]).norm()
    trainer.optimizer.zero_grad()
    told = trainer.train_step(*halves)
    assert told["loss"] == pytest.approx((sum(expected) / 2).item(), rel=1e-6)
    assert told["gradient_norm"] == pytest.approx(by_hand.item(), rel=1e-5)


def test_micro_batches_that_the_processes_cannot_share_are_refused(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.Accelerator.num_processes", 2)
    with pytest.raises(InvalidInputError, match="3 micro-batches"):
        toy.toy_trainer(tmp_path, 3)


def test_gradient_checkpointing_runs_blocks_twice_and_changes_nothing() -> None:
    tokens = torch.arange(12).reshape(2, 6)
    gradients = []
    for twice in (False, True):
        model = load_preset_pipeline("tiny").language_model.train().requires_grad_(True)
        if twice:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        calls: list[int] = []
        model.model.layers[0].mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        assert len(calls) == 1 + twice
        gradients.append(model.model.layers[0].mlp.up_proj.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("stage", [1, 2])
@needs_deepspeed
def test_zero_accumulates_clips_and_exchanges_checkpoints_with_one_process(
    toy: ModuleType, tmp_path: Path, stage: int
) -> None:
    config = (CONFIGS / "deepspeed_zero2.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config.replace("zero_stage: 2", f"zero_stage: {stage}"))
    one = toy.toy_trainer(tmp_path / "one", 4).fit()
    toy.toy_trainer(tmp_path / "two" / "moved", 4, stop_at=toy.CUT).fit()
    launch(str(tmp_path / "config.yaml"), str(SCRIPT), str(tmp_path / "two"), "4")
    told = json.loads((tmp_path / "two" / "history_0.json").read_text())
    assert max(column(one, "gradient_norm")) > 0.5  # above what the toy clips at
    for key in ("loss", "worst", "gradient_norm"):
        assert column(told, key) == pytest.approx(column(one, key), rel=1e-5), key
    assert column(toy.toy_trainer(tmp_path / "two" / "cut").fit()) == pytest.approx(column(one)[toy.CUT :], rel=1e-5)
    ours = load_file(tmp_path / "one" / "state.safetensors")
    for name in ("whole", "moved", "cut"):
        theirs = load_file(tmp_path / "two" / name / "state.safetensors")
        assert ours.keys() <= theirs.keys()
        for key, value in theirs.items():
            if key in ours:
                torch.testing.assert_close(value, ours[key], rtol=1e-4, atol=1e-6)
            else:  # what never has a gradient has moments too
                assert "unused" in key and ("step" in key or not value.any())


def test_deepspeed_is_refused_what_checkpoints_cannot_keep() -> None:
    known = {"zero_stage": 2, "offload_optimizer_device": "none", "deepspeed_config": {"bf16": {"enabled": False}}}

    def check(**changes: object) -> None:
        state = SimpleNamespace(deepspeed_plugin=SimpleNamespace(**known | changes))
        check_deepspeed(SimpleNamespace(state=state))  # type: ignore[arg-type]

    check()
    with pytest.raises(InvalidInputError, match="accelerate/fsdp.yaml"):
        check(zero_stage=3)
    halved = {"bf16": {"enabled": True}}
    for changes in ({"zero_stage": 0}, {"offload_optimizer_device": "cpu"}, {"deepspeed_config": halved}):
        with pytest.raises(InvalidInputError, match="deepspeed_zero2.yaml"):
            check(**changes)


@pytest.mark.parametrize("file", sorted(CONFIGS.iterdir()), ids=lambda file: file.stem)
def test_the_configurations_are_in_the_package_and_accelerate_reads_them(file: Path) -> None:
    config = load_config_from_file(str(file))
    kinds = {"fsdp": "FSDP", "deepspeed": "DEEPSPEED"}
    assert config.distributed_type.value == kinds.get(file.stem.partition("_")[0], "MULTI_GPU")
    assert config.use_cpu == (file.stem == "cpu_gloo")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A few faces, and a working folder whose components before the fidelity stage are random."""
    root = tmp_path_factory.mktemp("work")
    (root / "data").mkdir()
    rng = np.random.default_rng(0)
    for k in range(4):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(root / "data" / f"{k}.png"), cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC))
    pipeline = load_preset_pipeline("tiny")
    for name in ("image_tokenizer", "text_tokenizer", "language_model", "autoencoder", "lq_encoder"):
        getattr(pipeline, name).save_pretrained(root / "ready" / name)
    return root / "data", root / "ready"


def test_the_semantic_stage_reports_and_goes_on_with_gradient_checkpointing(
    work: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))
    seen: list[list[float]] = []
    for twice in (False, True):
        output = tmp_path / str(twice)
        output.mkdir()
        (output / "image_tokenizer").symlink_to(work[1] / "image_tokenizer")
        settings = semantic.Config(
            data=(work[0],), output_dir=output, preset="tiny", steps=2, batch_size=2, mixed_precision="no",
            sample_every=1, gradient_checkpointing=twice,
        )  # fmt: skip
        semantic.run(settings, log=lambda line: None)
        rows = (output / "runs/semantic/log.jsonl").read_text().splitlines()
        seen.append(column([json.loads(row) for row in rows]))
    assert seen[0] == pytest.approx(seen[1], rel=1e-5)


def working_folder(folder: Path, ready: Path) -> Path:
    folder.mkdir()
    for component in ready.iterdir():
        (folder / component.name).symlink_to(component)
    return folder


def logged(folder: Path) -> list[dict[str, float]]:
    return [json.loads(row) for row in (folder / "runs/fidelity/log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "config",
    [
        pytest.param("fsdp.yaml", marks=pytest.mark.slow),  # tests/training/test_ending.py shards in every run
        pytest.param("fsdp_gathered.yaml", marks=pytest.mark.slow),
        pytest.param("deepspeed_zero2.yaml", marks=needs_deepspeed),
    ],
)
def test_sharding_trains_in_two_processes_and_its_checkpoint_goes_on_in_one(
    work: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    """Three steps of the fidelity stage by its own command, the parameters cut in two; then two more in one piece.

    A picture is made after every step: what it gathers with averaged weights must not stay for the next step.
    """
    data, ready = work
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))
    settings = {"preset": "tiny", "pairs": 4, "batch_size": 2, "mixed_precision": "no"}
    settings |= {"perceptual_weight": 0.0, "identity_weight": 0.0, "decoder_weight": 0.0}
    options = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
    two, one = working_folder(tmp_path / "two", ready), working_folder(tmp_path / "one", ready)
    command = ["-m", "prefrestore.cli", "train", "fidelity", "--data", str(data), "--output-dir", str(two)]
    launch(config, *command, "--steps", "3", "--sample-every", "1", "--gradient-checkpointing", *options)
    assert (two / "runs/fidelity/samples/step_000003.png").is_file()
    with safe_open(two / "runs/fidelity/state.safetensors", "pt") as file:
        assert file.metadata()["written_by"] == f"{'FSDP' if 'fsdp' in config else 'DEEPSPEED'}, 2 processes"

    def alone(folder: Path, **changes: object) -> None:
        stage = fidelity.Config(data=(data,), output_dir=folder, **settings, **changes)  # type: ignore[arg-type]
        fidelity.run(stage, log=lambda line: None)

    alone(one, steps=3, micro_batches=2)
    cut, whole = (load_file(folder / "transformer" / WEIGHTS) for folder in (two, one))
    assert {key: value.shape for key, value in cut.items()} == {key: value.shape for key, value in whole.items()}
    for folder in (two, one):
        alone(folder, steps=5)
    told = [(row["step"], row["flow"], row["gradient_norm"]) for row in logged(two)]
    assert [step for step, _, _ in told] == [3, 5]
    assert told == [pytest.approx((row["step"], row["flow"], row["gradient_norm"]), rel=1e-3) for row in logged(one)]
