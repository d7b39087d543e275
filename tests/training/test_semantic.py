"""Step 1 on drawn faces: what the batches hold, the losses' parts, baselines, and exact resumption."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from prefrestore.data.faces import load_face_set
from prefrestore.data.mix import mix
from prefrestore.pipeline.components import build_component, build_components
from prefrestore.pipeline.presets import load_preset
from prefrestore.training import semantic as stage
from prefrestore.training.images import to_signed
from prefrestore.training.semantic import (
    Config,
    SemanticObjective,
    measure_writing,
    training_batch,
    unigram_loss,
)

CAPTION = "A face of coloured noise."


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six smooth random pictures, every other one with a caption."""
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    folder.mkdir()
    lines = []
    for index in range(6):
        picture = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        picture.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"f{index}.png")
        if index % 2:
            lines.append(json.dumps({"id": f"f{index}", "caption": CAPTION}))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def image_tokenizer() -> Any:
    tokenizer = build_component(load_preset("tiny"), "image_tokenizer")
    return tokenizer.initialise(torch.Generator().manual_seed(0))


@pytest.fixture
def objective(image_tokenizer: Any) -> SemanticObjective:
    parts = build_components(
        load_preset("tiny"),
        {"image_tokenizer": image_tokenizer, "text_tokenizer": "new", "language_model": "new"},
        trained=["language_model"],
        captions=[CAPTION],
    )
    return SemanticObjective(**parts, answer_position=None)


def config(data: Path, out: Path) -> Config:
    return Config(
        data=(data,),
        output_dir=out,
        preset="tiny",
        steps=3,
        batch_size=4,
        mixed_precision="no",
        sample_every=3,
    )


def test_batches_depend_on_seed_and_step_only_and_keep_the_shares(data: Path) -> None:
    faces = mix([load_face_set(data, size=64)])
    settings = replace(config(data, data), batch_size=64, degradation="bench-mild")
    first, again, other = (training_batch(faces, settings, step) for step in (5, 5, 6))
    assert torch.equal(first["lq"], again["lq"]) and first["captions"] == again["captions"]
    assert not torch.equal(first["lq"], other["lq"])
    assert set(first["captions"]) == {CAPTION, None} and 0 < sum(first["copy"]) < 32
    never = training_batch(faces, replace(settings, caption_share=0.0, copy_share=0.0), 5)
    assert set(never["captions"]) == {None} and not any(never["copy"])


def test_a_copy_task_reads_the_clean_image(objective: SemanticObjective, data: Path) -> None:
    faces = to_signed(np.asarray(load_face_set(data, size=64).images))
    other = faces.flip(0)
    arguments = {"captions": [None] * 6, "generator": torch.Generator()}
    both = objective(lq=other, targets=faces, copy=[True] * 6, **arguments)
    same = objective(lq=faces, targets=faces, copy=[True] * 6, **arguments)
    assert torch.equal(both["loss"], same["loss"])
    restored = objective(lq=other, targets=faces, copy=[False] * 6, **arguments)
    assert not torch.equal(restored["loss"], both["loss"])


def test_only_the_language_model_is_trained_and_the_flow_term_is_added(
    objective: SemanticObjective, image_tokenizer: Any, data: Path
) -> None:
    trained = {name.split(".")[0] for name, p in objective.named_parameters() if p.requires_grad}
    assert trained == {"language_model"}

    class Flow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, queries: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
            assert queries.shape == (6, image_tokenizer.num_tokens + 1, 32) and targets.shape[1] == 3
            return self.scale * (queries.square().mean() + torch.rand((), generator=generator))

    objective.flow_loss = Flow()
    faces = to_signed(np.asarray(load_face_set(data, size=64).images))
    losses = objective(faces, faces, [None] * 6, [False] * 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(losses["loss"], losses["cross_entropy"] + losses["flow"])
    losses["loss"].backward()
    assert objective.flow_loss.scale.grad is not None
    assert objective.language_model.model.embed_tokens.weight.grad is not None


def test_baselines_by_hand(objective: SemanticObjective) -> None:
    # frequencies 2.5, 1.5, 0.5, 0.5 of 5
    expected = -(np.log(0.5) + np.log(0.1)) / 2
    assert unigram_loss(torch.tensor([0, 0, 1]), torch.tensor([0, 3]), 4) == pytest.approx(expected)
    given = torch.randint(0, 32, (3, 16), generator=torch.Generator().manual_seed(0))
    values, written = measure_writing(objective, given, given, [None, CAPTION, None], batch=2)
    assert values["copied"] == 1 and written.shape == (3, 16)
    assert values["written"] == pytest.approx((written == given).float().mean().item())


def test_the_stage_runs_resumes_and_writes_its_folders(image_tokenizer: Any, data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    for name in ("whole", "cut"):
        image_tokenizer.save_pretrained(tmp_path / name / "image_tokenizer")
    stage.run(config(data, tmp_path / "whole"), log=said.append)
    assert any("nats" in line for line in said) and any("copied" in line for line in said)
    cut = stage.run(replace(config(data, tmp_path / "cut"), max_minutes=0.0), log=said.append)
    assert cut.step == 1
    stage.run(config(data, tmp_path / "cut"), log=said.append)
    preset = load_preset("tiny")
    whole, resumed = (
        build_component(preset, "language_model", tmp_path / name / "language_model") for name in ("whole", "cut")
    )
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    text = build_component(preset, "text_tokenizer", tmp_path / "whole" / "text_tokenizer")
    assert len(text) == whole.config.vocab_size
