"""Both steps in one: what is trained by what, exact resumption, and a folder that is assembled."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.training import assemble, one_stage
from prefrestore.training.flow_objective import FlowObjective
from prefrestore.training.loop import Trainer
from prefrestore.training.one_stage import FINISHED, Config, OneStageObjective, new_pipeline, take_over
from prefrestore.training.pairs import load_training_faces
from prefrestore.training.semantic import SemanticObjective


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six smooth random pictures, every other one with a caption."""
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    folder.mkdir()
    for index in range(6):
        picture = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        picture.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"f{index}.png")
    lines = [json.dumps({"id": f"f{index}", "caption": "A face of coloured noise."}) for index in (1, 3, 5)]
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the components that both ways share."""
    folder, pipeline = tmp_path_factory.mktemp("finished"), load_preset_pipeline("tiny")
    for name in FINISHED:
        getattr(pipeline, name).save_pretrained(folder / name)
    return folder


@pytest.fixture
def config(data: Path, finished: Path, tmp_path: Path) -> Config:
    return Config(
        data=(data,), output_dir=tmp_path / "one", components=finished, preset="tiny", steps=3, batch_size=4,
        mixed_precision="no", sample_every=3, perceptual_weight=0.0, identity_weight=0.0,
    )  # fmt: skip


def objective_of(config: Config) -> OneStageObjective:
    take_over(config)
    pipeline = new_pipeline(config, ["A face of coloured noise."])
    semantics = SemanticObjective(
        pipeline.language_model, pipeline.image_tokenizer, pipeline.text_tokenizer, answer_position=None
    )
    return OneStageObjective(
        semantics,
        FlowObjective.of(pipeline, config, seed=config.seed),
        pipeline.lq_encoder,
        pipeline.autoencoder,
        cross_entropy_weight=config.cross_entropy_weight,
    )


def losses_of(objective: OneStageObjective, copy: bool = False) -> dict[str, torch.Tensor]:
    lq, targets = (torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(s)) * 2 - 1 for s in (0, 1))
    return objective(lq, targets, [None] * 2, [copy] * 2, generator=torch.Generator().manual_seed(0), step=7)


def test_the_loss_is_the_sum_and_all_but_the_finished_components_learn(config: Config) -> None:
    objective = objective_of(replace(config, cross_entropy_weight=3.0))
    losses = losses_of(objective)
    flow = sum(losses[part] for part in ("flow", "discriminator", "features", "decoder"))
    parts = 3 * losses["cross_entropy"] + flow
    assert losses["loss"].item() == pytest.approx(parts.item(), rel=1e-5)
    trained = {name.split(".")[1] for name, p in objective.named_parameters() if p.requires_grad}
    assert trained == {"language_model", "transformer", "connectors", "autoencoder", "discriminator"}
    decoders = [name for name, p in objective.named_parameters() if p.requires_grad and "autoencoder" in name]
    assert decoders and all("decoder" in name for name in decoders)


def test_the_flow_alone_reaches_the_language_model(config: Config) -> None:
    objective = objective_of(replace(config, cross_entropy_weight=0.0, condition_dropout=0.0, query_dropout=0.0))
    # A denoiser that answers zero passes nothing back; after a step it answers something.
    torch.nn.init.normal_(objective.flow.transformer.proj_out.weight, generator=torch.Generator().manual_seed(0))
    losses_of(objective)["loss"].backward()
    model = objective.semantics.language_model.model
    assert model.embed_tokens.weight.grad is not None and model.embed_tokens.weight.grad.abs().sum() > 0
    assert not [name for name, p in objective.lq_encoder.named_parameters() if p.grad is not None]


def test_a_copy_task_is_the_language_model_s_alone(config: Config) -> None:
    objective = objective_of(replace(config, query_dropout=1.0))
    copied, read = losses_of(objective, copy=True), losses_of(objective)
    assert copied["cross_entropy"] != read["cross_entropy"]
    # Without queries, nothing of the chat reaches the flow: the LQ latents are the degraded image's in both.
    assert torch.equal(copied["flow"], read["flow"])


def test_it_resumes_to_the_same_losses_and_is_assembled(
    config: Config, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    seen: list[dict[str, float]] = []
    step = Trainer.train_step

    def recorded(trainer: Trainer, *batches: dict[str, object]) -> dict[str, float]:
        seen.append(step(trainer, *batches))
        return seen[-1]

    monkeypatch.setattr(Trainer, "train_step", recorded)
    one_stage.run(config, log=said.append)
    whole = list(seen)
    assert any("written" in line for line in said) and list((tmp_path / "one/runs/one_stage/samples").glob("*.png"))
    seen.clear()
    cut = replace(config, output_dir=tmp_path / "cut")
    assert one_stage.run(replace(cut, max_minutes=0.0), log=said.append).step == 1
    one_stage.run(cut, log=said.append)
    assert len(whole) == 3 and seen == whole
    states = [load_file(tmp_path / name / "runs/one_stage/state.safetensors") for name in ("one", "cut")]
    assert states[0].keys() == states[1].keys()
    assert [key for key, value in states[0].items() if not torch.equal(value, states[1][key])] == []
    # The language model began with random weights, and has moved a little from them.
    captions = load_training_faces((data,), 64).captions_to_learn_from()
    fresh = new_pipeline(config, captions).language_model.state_dict()
    for key, value in load_file(tmp_path / "one" / "language_model" / "model.safetensors").items():
        assert 0 < (value - fresh[key]).abs().max() < 1e-3, key

    assembled = tmp_path / "pipeline"
    settings = assemble.Config(data=(data,), output_dir=tmp_path / "one", destination=assembled, preset="tiny", faces=2)
    assemble.run(settings, log=said.append)
    restored = load_preset_pipeline("tiny", folder=assembled)(np.full((64, 64, 3), 99, np.uint8), output_type="np")
    assert np.isfinite(restored.images).all()


def test_what_would_be_written_over_and_what_is_missing(config: Config, finished: Path, tmp_path: Path) -> None:
    (config.output_dir / "language_model").mkdir(parents=True)
    with pytest.raises(InvalidInputError, match="language_model is of another stage"):
        take_over(config)
    empty = replace(config, output_dir=tmp_path / "empty", components=None)
    take_over(empty)
    with pytest.raises(WeightsError, match="train autoencoder"):
        new_pipeline(empty, ["A face."])
    with pytest.raises(WeightsError, match="is not there yet"):
        take_over(replace(empty, components=tmp_path / "empty"))
    # What is there already is kept.
    kept = replace(config, output_dir=tmp_path / "kept")
    (kept.output_dir / "autoencoder").mkdir(parents=True)
    take_over(kept)
    assert not list((kept.output_dir / "autoencoder").iterdir())
    assert sorted(path.name for path in kept.output_dir.iterdir()) == sorted(FINISHED)
