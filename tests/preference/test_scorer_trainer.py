"""The scorer's stages: batches are pure functions of the step, runs resume, people's choices are fitted."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from prefrestore.data.faces import FaceSet
from prefrestore.data.mix import mix
from prefrestore.errors import InvalidInputError
from prefrestore.models.scorer import load_scorer
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.preference import fit as judged
from prefrestore.preference import scorer_trainer as scorer
from prefrestore.preference.restored import SETTINGS, RestoredLadders, restored_ladders


def face_set(count: int = 4, size: int = 64) -> FaceSet:
    rng = np.random.default_rng(0)
    images = [
        cv2.resize(rng.integers(0, 256, (9, 9, 3)).astype(np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
        for _ in range(count)
    ]
    return FaceSet(
        images=np.stack(images),
        ids=tuple(f"f{i}" for i in range(count)),
        captions=(None,) * count,
        points=np.full((count, 5, 2), np.nan, np.float32),
        persons=(None,) * count,
        sources=(None,) * count,
        split="train",
    )


@pytest.fixture(scope="module")
def faces_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    faces = face_set()
    for name, image in zip(faces.ids, faces.images, strict=True):
        Image.fromarray(image).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))


def stage(folder: Path, output: Path, **changes: object) -> scorer.Config:
    settings = {"steps": 3, "batch_size": 1, "restored_faces": 0, "mixed_precision": "no", "sample_every": 100}
    return scorer.Config(data=(folder,), output_dir=output, **{**settings, **changes})  # type: ignore[arg-type]


def fake_restored() -> RestoredLadders:
    rng = np.random.default_rng(1)
    return RestoredLadders(
        pictures=rng.integers(0, 256, (3, 2 + 2 * len(SETTINGS), 64, 64, 3)).astype(np.uint8), rows=np.arange(3)
    )


def test_a_batch_is_a_pure_function_of_the_step(tmp_path: Path) -> None:
    faces, config = mix([face_set()]), stage(tmp_path, tmp_path, batch_size=12)
    once, again, other = (scorer.training_batch(faces, fake_restored(), config, step) for step in (5, 5, 6))
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert once["images"].shape != other["images"].shape or not torch.equal(once["images"], other["images"])
    assert once["images"].min() >= 0 and once["images"].max() <= 1
    assert len(once["pairs"]) == len(once["preference"])
    assert once["pairs"].max() == len(once["images"]) - 1


def test_ties_and_orders_are_told_as_such(tmp_path: Path) -> None:
    faces, config = mix([face_set()]), stage(tmp_path, tmp_path, batch_size=200)
    batch = scorer.training_batch(faces, fake_restored(), config, 0)
    pairs_of_ties = (batch["preference"] == 0.5).sum().item()
    assert 0 < pairs_of_ties < 0.25 * len(batch["preference"])
    assert set(batch["preference"].tolist()) == {0.5, 1.0}


def test_without_a_restorer_its_kinds_are_not_drawn(tmp_path: Path) -> None:
    batch = scorer.training_batch(mix([face_set()]), None, stage(tmp_path, tmp_path, batch_size=20), 0)
    assert len(batch["images"]) == 60


def test_restored_ladders_are_kept_and_grow(tmp_path: Path) -> None:
    loads: list[int] = []

    def load() -> object:
        loads.append(1)
        return load_preset_pipeline("tiny")

    def build(count: int) -> RestoredLadders:
        return restored_ladders(load, "tiny", face_set(), tmp_path, count=count, seed=0, log=lambda line: None)  # type: ignore[arg-type]

    once = build(2)
    assert once.pictures.shape == (2, 2 + 2 * len(SETTINGS), 64, 64, 3)
    assert np.array_equal(build(2).pictures, once.pictures) and len(loads) == 1
    assert once.ladder(1, 2).shape == (3, 64, 64, 3) and np.array_equal(once.ladder(1, 2)[0], once.round_trip(1)[0])
    # The same noise and settings, but fidelity 1 is the posterior mean: another picture.
    assert not np.array_equal(once.ladder(0, 0)[1], once.ladder(0, 2)[1])


@pytest.mark.usefixtures("cache")
def test_the_stage_resumes_to_the_same_losses_and_writes_a_checked_scorer(faces_folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    whole = scorer.run(stage(faces_folder, tmp_path / "whole", sample_every=3), log=lines.append)
    assert any(line.startswith("held out") for line in lines)
    cut = stage(faces_folder, tmp_path / "cut", max_minutes=0.0)
    for expected in (1, 2, 3):  # stopped after every step
        assert scorer.run(cut, log=lines.append).step == expected
    for name, value in whole.average.items():
        assert torch.equal(scorer.run(cut, log=lines.append).average[name], value)
        break
    one, other = (load_scorer(tmp_path / name / "scorer") for name in ("whole", "cut"))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    again = stage(faces_folder, tmp_path / "further", start_from=str(tmp_path / "whole" / "scorer"), steps=1)
    assert scorer.run(again, log=lines.append).step == 1


def write_judgements(folder: Path, count: int = 10) -> Path:
    """Pairs of a picture and its blur; the sharp one is chosen."""
    rng = np.random.default_rng(0)
    lines = []
    for index in range(count):
        sharp = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
        names = [f"{index}_sharp.png", f"{index}_soft.png"]
        for name, picture in zip(names, (sharp, cv2.GaussianBlur(sharp, (0, 0), 2)), strict=True):
            Image.fromarray(picture).save(folder / name)
        swapped = index % 2 == 1
        first, second = reversed(names) if swapped else names
        choice = "second" if swapped else "first"
        lines.append({"first": first, "second": second, "choice": choice, "who": "R1", "when": "2026-03-01"})
    path = folder / "judgements.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def fitting(tmp_path: Path, **changes: object) -> judged.Config:
    config = judged.Config(
        judgements=(write_judgements(tmp_path),),
        output_dir=tmp_path / "fit",
        start_from="none",
        steps=4,
        batch_size=2,
        learning_rate=1e-3,
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def test_fitting_reports_holds_out_and_resumes(tmp_path: Path) -> None:
    lines: list[str] = []
    config = fitting(tmp_path)
    trainer = judged.run(config, log=lines.append)
    text = "\n".join(lines)
    assert "10 judgements: 8 to train on, 2 held out" in text and "by picture and group" in text
    assert text.count("expected calibration error") == 2
    assert Image.open(config.output_dir / "reliability.png").size[0] > 300
    load_scorer(config.output_dir / "scorer")
    history = [json.loads(line) for line in (config.output_dir / "runs/judged/log.jsonl").read_text().splitlines()]
    other = replace(config, output_dir=tmp_path / "cut")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judged, "judged_batch", _failing_at(2))
        with pytest.raises(KeyboardInterrupt):
            judged.run(other, log=lines.append)
    resumed = judged.run(other, log=lines.append)
    again = [json.loads(line) for line in (other.output_dir / "runs/judged/log.jsonl").read_text().splitlines()]
    assert again[-1]["loss"] == history[-1]["loss"]
    assert all(torch.equal(resumed.average[name], value) for name, value in trainer.average.items())


def _failing_at(step: int) -> Callable[..., dict[str, torch.Tensor]]:
    """Stands for a kill: the batch of that step never comes."""
    make = judged.judged_batch

    def batch(judgements: object, size: int, config: judged.Config, at: int) -> dict[str, torch.Tensor]:
        if at == step:
            raise KeyboardInterrupt
        return make(judgements, size, config, at)  # type: ignore[arg-type]

    return batch


def test_both_orders_of_a_pair_say_the_same(tmp_path: Path) -> None:
    config = fitting(tmp_path, batch_size=64)
    from prefrestore.preference.judgements import read_judgements

    judgements, _ = read_judgements(config.judgements)
    batch = judged.judged_batch(judgements, 64, config, 0)
    chosen = torch.where(batch["preference"] == 1, batch["pairs"][:, 0], batch["pairs"][:, 1])
    rejected = torch.where(batch["preference"] == 1, batch["pairs"][:, 1], batch["pairs"][:, 0])
    roughness = batch["images"].diff(dim=-1).abs().mean((1, 2, 3))
    assert (roughness[chosen] > roughness[rejected]).all()


def test_a_run_is_not_resumed_with_other_judgements(tmp_path: Path) -> None:
    config = fitting(tmp_path, steps=1)
    judged.run(config, log=lambda line: None)
    with pytest.raises(InvalidInputError, match="other judgements"):
        judged.run(replace(config, seed=1), log=lambda line: None)


def test_nothing_is_trained_when_a_picture_is_missing(tmp_path: Path) -> None:
    config = fitting(tmp_path)
    (tmp_path / "3_soft.png").unlink()
    with pytest.raises(InvalidInputError, match=r"line 4: the picture .*3_soft.png is missing"):
        judged.run(config, log=lambda line: None)
    assert not config.output_dir.exists()
    lines: list[str] = []
    judged.run(replace(config, skip_bad=True, steps=1), log=lines.append)
    assert any("9 judgements, 1 bad lines left out" in line for line in lines)
