"""The steering's stage: what is told, what is said, and a run at tiny scale that the pipeline then acts on."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from prefrestore.data.attributes import CLASSES, told_vector
from prefrestore.errors import WeightsError
from prefrestore.metrics.attributes import AttributeReader
from prefrestore.models.texture.steering import Steering
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.training import assemble, steering
from prefrestore.training.told import classes_of, rows_of, sentence, told_of

TRUTH = {"glasses": "none", "expression": "smile", "gender": "woman", "pose": "left"}


def test_a_vector_tells_what_it_was_made_of() -> None:
    assert classes_of(told_vector(TRUTH)) == TRUTH
    assert classes_of(told_vector({})) == {}
    rows = rows_of(torch.from_numpy(told_vector(TRUTH))[None])
    assert rows["expression"].tolist() == [[0, 1, 0]] and rows["age"].sum() == 0


@pytest.mark.parametrize("seed", range(30))
def test_one_thing_is_asked_that_is_not_so(seed: int) -> None:
    asked = told_of(TRUTH, np.random.default_rng(seed), asked=True)
    other = {name for name, value in asked.items() if TRUTH[name] != value}
    assert len(other) == 1 and "pose" not in asked
    plain = told_of(TRUTH, np.random.default_rng(seed), asked=False)
    assert all(TRUTH[name] == value for name, value in plain.items())


@pytest.mark.parametrize("seed", range(60))
def test_a_sentence_means_what_its_classes_say(seed: int) -> None:
    text, said = sentence(np.random.default_rng(seed))
    told = {name: CLASSES[name][k] for (name, k) in zip(CLASSES, said, strict=True) if k < len(CLASSES[name])}
    low = text.lower()
    if "glasses" in low:
        assert (told["glasses"] == "none") == ("no glasses" in low or "without glasses" in low)
    else:
        assert "glasses" not in told
    if "woman" in low or "girl" in low:
        assert told["gender"] == "woman"
    if told.get("expression") == "serious":
        assert any(word in low for word in ("not smiling", "serious", "mouth closed"))


class Distance(torch.nn.Module):
    """Stands for LPIPS."""

    def forward(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Pictures (B,3,S,S) -> (B,)."""
        return (images - targets).abs().mean((1, 2, 3))


class Squares(torch.nn.Module):
    """Stands for the networks of `FaceFeatures`: the means of 4 x 4 squares, which need no weights."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B,3,S,S) -> (B,48)."""
        return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Pictures, a working folder at tiny scale, and a reader of made-up attributes."""
    root = tmp_path_factory.mktemp("steering")
    data, work = root / "data", root / "work"
    data.mkdir()
    rng = np.random.default_rng(0)
    for k in range(4):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(data / f"face_{k}.png"), cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC))
    load_preset_pipeline("tiny").save_pretrained(work)
    drawn = torch.Generator().manual_seed(0)
    heads = {
        name: (torch.randn(48, len(classes), generator=drawn), torch.zeros(len(classes)))
        for name, classes in CLASSES.items()
    }
    AttributeReader(CLASSES, heads).save(root / "reader.safetensors")
    return data, work, root / "reader.safetensors"


def settings(workshop: tuple[Path, Path, Path], **changes: object) -> steering.Config:
    data, work, reader = workshop
    plain = {"perceptual_weight": 0.0, "identity_weight": 0.0, "features_weight": 0.0, "pairs": 8, "batch_size": 4}
    told = {"data": (data,), "output_dir": work, "preset": "tiny", "reader": reader, "steps": 6, "sentences": 4}
    return steering.Config(**{**told, **plain, **changes})  # type: ignore[arg-type]


def test_it_becomes_part_of_the_pipeline_and_acts_on_prompts(
    workshop: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(steering, "FaceFeatures", Squares)
    monkeypatch.setattr("prefrestore.training.attribute_loss.FaceFeatures", Squares)
    said: list[str] = []
    steering.run(settings(workshop, sample_every=6), log=said.append)
    assert any("sentences read right" in line for line in said)
    data, work, _ = workshop
    destination = tmp_path / "pipe"
    assemble.run(assemble.Config(data=(data,), output_dir=work, destination=destination, preset="tiny", faces=1))
    whole = load_preset_pipeline("tiny", folder=destination)
    assert whole.steering is not None and any(name.startswith("steering/") for name in whole.weight_hashes)
    told = torch.from_numpy(told_vector({"glasses": "glasses"}))[None]
    with torch.no_grad():
        assert torch.count_nonzero(whole.steering(torch.ones(1, 4, 8, 8), told)) > 0


@pytest.mark.parametrize("weights", [{"latent_weight": 1.0}, {"perceptual_weight": 1.0}])
def test_each_loss_counts_without_the_others(weights: dict[str, float], workshop: tuple[Path, Path, Path]) -> None:
    plain = {"latent_weight": 0.0, "attribute_weight": 0.0, **weights}
    pipeline = load_preset_pipeline("tiny")
    made = Steering(32, latent_channels=4, side=8, width=32, layers=1, heads=2)
    seen = Distance() if "perceptual_weight" in weights else None
    objective = steering.SteeringObjective(made, settings(workshop, **plain), pipeline, None, seen, None)
    told = torch.from_numpy(told_vector({"glasses": "glasses"}))[None]
    losses = objective(
        torch.zeros(1, 4, 8, 8), torch.ones(1, 4, 8, 8), torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64),
        told, torch.tensor([False]), torch.zeros(1, 2, 32), torch.ones(1, 2, dtype=torch.bool),
        torch.zeros(1, len(CLASSES), dtype=torch.long), torch.Generator().manual_seed(0),
    )  # fmt: skip
    losses["loss"].backward()
    assert torch.count_nonzero(made.project.weight.grad) > 0


def test_a_file_that_is_no_reader_is_refused(
    workshop: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steering, "FaceFeatures", Squares)
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(WeightsError):
        steering.run(settings(workshop, reader=tmp_path / "text.safetensors"))
