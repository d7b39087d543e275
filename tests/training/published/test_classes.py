"""The stages before the language model on a preset of the published classes: trained, or refused in one sentence."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from prefrestore.errors import InvalidInputError
from prefrestore.pipeline.components import build_component
from prefrestore.pipeline.presets import load_preset
from prefrestore.training import autoencoder, encoder, tokenizer

PRESET = str(Path(__file__).parents[2] / "presets" / "published.json")
SETTINGS = {"preset": PRESET, "steps": 2, "batch_size": 2, "mixed_precision": "no"}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    folder.mkdir()
    for k in range(4):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"face_{k}.png"), cv2.resize(coarse, (32, 32), interpolation=cv2.INTER_CUBIC))
    return folder


def test_diffusers_own_autoencoder_is_trained_by_the_same_stage(data: Path, tmp_path: Path) -> None:
    trainer = autoencoder.run(autoencoder.Config(data=(data,), output_dir=tmp_path / "work", crop=16, **SETTINGS))
    assert trainer.step == 2
    preset = load_preset(PRESET)
    written = build_component(preset, "autoencoder", tmp_path / "work" / "autoencoder")
    first = build_component(preset, "autoencoder")
    assert type(written) is type(first) and type(written).__name__ == "AutoencoderDC"
    moved = [not np.array_equal(a, b) for a, b in zip(written.parameters(), first.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2


def test_what_cannot_be_trained_says_so(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="published-small"):
        tokenizer.run(tokenizer.Config(data=(data,), output_dir=tmp_path / "work", **SETTINGS))
    build_component(load_preset(PRESET), "autoencoder").save_pretrained(tmp_path / "work" / "autoencoder")
    with pytest.raises(InvalidInputError, match="lq_encoder"):
        encoder.run(encoder.Config(data=(data,), output_dir=tmp_path / "work", pairs=4, **SETTINGS))
    assert not (tmp_path / "work" / "runs").exists()
