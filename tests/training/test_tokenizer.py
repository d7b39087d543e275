"""The tokenizer's stage on drawn faces: targets, mirroring, a run that is stopped and goes on."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from prefrestore.data.faces import load_face_set
from prefrestore.data.mix import mix
from prefrestore.pipeline.components import build_component
from prefrestore.pipeline.presets import load_preset
from prefrestore.training import tokenizer as stage
from prefrestore.training.tokenizer import Config, identity_targets, measure_codes, training_batch


def draw_faces(root: Path, count: int = 6, size: int = 64) -> Path:
    """Ellipses with eyes and a mouth, with the table and captions of the data card's layout."""
    rng = np.random.default_rng(0)
    (root / "faces" / "train").mkdir(parents=True)
    rows = ["id,split,source,licence,synthetic,size,person,defect,points"]
    captions = []
    for index in range(count):
        picture = np.full((size, size, 3), rng.integers(60, 200, 3), dtype=np.uint8)
        skin = tuple(int(v) for v in rng.integers(90, 250, 3))
        cv2.ellipse(picture, (size // 2, size // 2), (size // 4, size // 3), 0, 0, 360, skin, -1)
        points = [(24, 30), (40, 30), (32, 38), (26, 46), (38, 46)]
        for x, y in points:
            cv2.circle(picture, (x, y), 2, (20, 20, 20), -1)
        cv2.imwrite(str(root / "faces" / "train" / f"f{index}.png"), picture)
        text = " ".join(f"{x} {y}" for x, y in points)
        rows.append(f"f{index},train,drawn,CC0,1,{size},p{index},none,{text}")
        captions.append(json.dumps({"id": f"f{index}", "caption": f"A drawn face number {index}."}))
    (root / "faces.csv").write_text("\n".join(rows) + "\n")
    (root / "captions.jsonl").write_text("\n".join(captions) + "\n")
    return root


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))
    return draw_faces(tmp_path / "data")


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


def test_identities_are_unit_vectors_and_kept(data: Path, tmp_path: Path) -> None:
    faces = load_face_set(data, size=64)
    first = identity_targets(faces)
    assert first.shape == (6, 128)
    assert np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
    (kept,) = (tmp_path / "cache").glob("identity-*.npy")
    kept.touch()
    assert np.array_equal(identity_targets(faces), first)


def test_a_batch_depends_on_seed_and_step_only_and_mirrors_points_with_pictures(data: Path) -> None:
    faces = load_face_set(data, size=64)
    identities = [np.eye(6, 128, dtype=np.float32)]
    settings = replace(config(data, data), batch_size=16, degraded_share=0.0)
    batch, again, other = (training_batch(mix([faces]), identities, settings, step) for step in (1, 1, 2))
    assert torch.equal(batch["images"], again["images"]) and torch.equal(batch["points"], again["points"])
    assert not torch.equal(batch["images"], other["images"])
    rows = batch["identity"].argmax(1)
    straight = torch.from_numpy(faces.points[0] / 64)
    mirrored = 0
    for image, points, row in zip(batch["images"], batch["points"], rows, strict=True):
        original = torch.from_numpy(np.array(faces.images[row])).permute(2, 0, 1) / 127.5 - 1
        if torch.allclose(image, original, atol=1e-5):
            assert torch.allclose(points, straight)
        else:
            mirrored += 1
            assert torch.allclose(image, original.flip(2), atol=1e-5)
            # x of the left eye becomes one less the right eye's
            assert points[0, 0].item() == pytest.approx(1 - 40 / 64)
            assert points[3, 0].item() == pytest.approx(1 - 38 / 64)
            assert (points[0, 0] < points[1, 0]) and (points[3, 0] < points[4, 0])
    assert 0 < mirrored < 16


def test_the_stage_runs_resumes_and_writes_its_folder(data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    whole = stage.run(config(data, tmp_path / "whole"), log=said.append)
    assert whole.step == 3 and any("perplexity" in line for line in said)
    preset = load_preset("tiny")
    loaded = build_component(preset, "image_tokenizer", tmp_path / "whole" / "image_tokenizer")
    assert loaded.config.image_size == 64
    assert list((tmp_path / "whole" / "runs" / "tokenizer" / "samples").glob("*.png"))
    # Cut after one step: max_minutes=0 stops at once, with a checkpoint.
    cut = stage.run(replace(config(data, tmp_path / "cut"), max_minutes=0.0), log=said.append)
    assert cut.step == 1
    stage.run(config(data, tmp_path / "cut"), log=said.append)
    resumed = build_component(preset, "image_tokenizer", tmp_path / "cut" / "image_tokenizer")
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_measures_by_hand(data: Path) -> None:
    sizes = {"image_size": 32, "patch_size": 8, "widths": [16, 16], "blocks": [1, 1], "low_resolution": 16}
    tokenizer = build_component(load_preset("tiny").with_arguments("image_tokenizer", sizes), "image_tokenizer")
    tokenizer.initialise(torch.Generator().manual_seed(0))
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    said = tokenizer.decode(tokenizer.encode(images))
    values = measure_codes(tokenizer, images, said.identity, said.points + 0.03)
    assert values["identity"] == pytest.approx(1, abs=1e-5)
    assert values["points"] == pytest.approx(0.03 * 2**0.5, abs=1e-5)
    assert 1 <= values["perplexity"] <= 8
