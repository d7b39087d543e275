"""Training from each kind of folder, as published runs leave them, and from none that is not whole."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from steps_run import restored, run
from tiny_checkpoint import ARCHITECTURE, Tiny
from training_folders import TRAINING_ONLY, everything, rewrite

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.pipeline.published.convert import convert
from prefrestore.training import everything as every_stage
from prefrestore.training import fidelity, one_stage, semantic


@pytest.fixture(scope="module")
def of_training(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An assembled folder of a step 2: the frozen encoder's copy, a token too many, the teacher, in four shards."""
    folder = Path(shutil.copytree(tiny.assembled, tmp_path_factory.mktemp("of_training") / "model"))
    everything(folder)
    rewrite(folder, {}, 4)
    assert len(list(folder.glob("*.safetensors"))) == 4
    return folder


@pytest.fixture(scope="module")
def converted(of_training: Path) -> Path:
    folder = of_training.with_name("converted")
    convert(of_training, folder, architecture=ARCHITECTURE, log=lambda line: None)
    return folder


@pytest.mark.parametrize("kind", ["of_training", pytest.param("converted", marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", ["semantic", "fidelity", "preference"])
def test_a_folder_of_the_training_is_trained_on(
    request: pytest.FixtureRequest, preset: str, faces: Path, tmp_path: Path, kind: str, stage: str
) -> None:
    model = request.getfixturevalue(kind)
    (row,) = run(stage, faces, preset, model, tmp_path / "out", steps=1).losses
    assert np.isfinite(row["loss"])
    before = restored(model)
    if stage == "preference":
        assert not torch.equal(restored(model, tmp_path / "out/preference"), before)
        return
    after = restored(tmp_path / "out/pipeline")
    torch.testing.assert_close(after, restored(tmp_path / "out/assembled"))
    assert not torch.equal(after, before)
    kept = {k for file in (tmp_path / "out/assembled").glob("*.safetensors") for k in load_file(file)}
    assert not [key for key in kept if "teacher" in key or "fixed_vae" in key]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["semantic", "fidelity"])
def test_both_kinds_are_trained_as_the_plain_folder_is(
    tiny: Tiny, of_training: Path, converted: Path, preset: str, faces: Path, tmp_path: Path, stage: str
) -> None:
    plain = run(stage, faces, preset, tiny.assembled, tmp_path / "plain", steps=1)
    for model in (of_training, converted):
        ours = run(stage, faces, preset, model, tmp_path / model.name, steps=1)
        assert ours.trainer.trained.keys() == plain.trainer.trained.keys()
        if stage == "fidelity":  # in step 1 the rows that no token has count in the softmax, and one folder lacks them
            assert ours.losses[0] == pytest.approx(plain.losses[0], rel=1e-5), model.name


def test_step_1_from_ta_tok_and_sana(tiny: Tiny, preset: str, faces: Path, tmp_path: Path) -> None:
    """The language model, its tokenizer and the connectors are new; the published details are asked for."""
    model = tmp_path / "parts"
    shutil.copytree(tiny.sana, model / "SANA")
    state = torch.load(tiny.ta_tok, weights_only=True)
    state["model"]["sd"] |= TRAINING_ONLY
    torch.save(state, model / "ta_tok.pth")
    ran = run("semantic", faces, preset, model, tmp_path / "out", reference=True)
    assert ran.trainer.step == 3
    assert all(np.isfinite(row["loss"]) and row["flow"] > 0 for row in ran.losses)
    kept = {k for file in (tmp_path / "out/assembled").glob("*.safetensors") for k in load_file(file)}
    assert not [key for key in kept if "teacher" in key]
    torch.testing.assert_close(
        restored(tmp_path / "out/pipeline"), restored(tmp_path / "out/assembled")
    )


@pytest.mark.parametrize("stage", ["semantic", "fidelity", "preference"])
def test_folders_that_cannot_be_trained_from(
    of_training: Path, preset: str, faces: Path, tmp_path: Path, stage: str
) -> None:
    broken = Path(shutil.copytree(of_training, tmp_path / "broken"))
    shard = sorted(broken.glob("*.safetensors"))[2]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=f"{shard.name}.*truncated"):
        run(stage, faces, preset, broken, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    if stage != "preference":
        for name, match in (("empty", "neither"), ("no", "no such folder")):
            with pytest.raises(WeightsError, match=match):
                run(stage, faces, preset, tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_two_steps_in_one_command(tiny: Tiny, preset: str, faces: Path, tmp_path: Path) -> None:
    quick = {"batch_size": 2, "mixed_precision": "no"}
    told: list[str] = []

    def all_of_them(model: Path) -> None:
        config = every_stage.Config(
            data=(faces,), output_dir=tmp_path / "work", destination=tmp_path / "ours", preset=preset, model=model,
            steps_scale=1e-9,
        )  # fmt: skip
        every_stage.run(config, overrides={"semantic": quick, "fidelity": quick}, log=told.append)

    all_of_them(tiny.assembled)
    ours = restored(tmp_path / "ours")
    torch.testing.assert_close(ours, restored(tmp_path / "work/fidelity/assembled"))
    assert not torch.equal(ours, restored(tmp_path / "work/semantic/pipeline"))
    log = tmp_path / "work/runs"
    assert not log.exists() and told[0] == "training semantic"
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.safetensors")}
    all_of_them(tiny.assembled)  # again: nothing is trained, and the destination is put in its place once more
    assert {path: path.stat().st_mtime_ns for path in written} == written
    with pytest.raises(InvalidInputError, match="another run"):
        all_of_them(tmp_path / "work/fidelity/assembled")


def test_what_a_preset_of_published_classes_needs(tiny: Tiny, preset: str, faces: Path, tmp_path: Path) -> None:
    common = {"data": (faces,), "output_dir": tmp_path / "work"}
    ours, theirs = {"preset": preset, **common}, {"preset": "tiny", **common}
    for module in (semantic, fidelity):
        with pytest.raises(InvalidInputError, match="name their folder as --model"):
            module.run(module.Config(**ours))
        with pytest.raises(InvalidInputError, match="--model is for presets of the published classes"):
            module.run(module.Config(**theirs, model=tiny.assembled))
    with pytest.raises(InvalidInputError, match=r"LQ encoder of their own.*train semantic"):
        one_stage.run(one_stage.Config(**ours))
    for settings, match in ((ours, "name their folder as --model"), (theirs | {"model": faces}, "takes no folder")):
        with pytest.raises(InvalidInputError, match=match):
            every_stage.run(every_stage.Config(**settings, destination=tmp_path / "ours"))
    assert not (tmp_path / "work").exists()
