"""A run knows what it was made from: other data, settings or weights are not taken for it."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from prefrestore.data.faces import load_face_set
from prefrestore.data.identity import face_identity
from prefrestore.data.mix import mix
from prefrestore.errors import InvalidInputError
from prefrestore.files.fingerprints import differences, first_differences
from prefrestore.pipeline.build import build_pipeline, load_preset_pipeline
from prefrestore.pipeline.presets import load_preset
from prefrestore.training import autoencoder, encoder, everything, semantic
from prefrestore.training.latents import PairsConfig, latent_pairs

TINY = {"preset": "tiny", "steps": 2, "batch_size": 2, "mixed_precision": "no"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))


def faces_in(folder: Path, seed: int) -> Path:
    """A folder of four smooth 64 px pictures, of the same names for every seed."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for k in range(4):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"face_{k}.png"), cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC))
    return folder


def test_differences_are_named() -> None:
    held = {"settings": {"rewards": "identity=1", "seed": 0}, "data": "a" * 64}
    assert differences(held, held) == []
    asked = {"settings": {"rewards": "lpips=1", "seed": 0}, "data": "b" * 64}
    assert differences(held, asked) == ["data", 'settings.rewards "identity=1", now "lpips=1"']
    assert first_differences({}, {str(k): k for k in range(5)}).endswith(" and 2 more")


def test_faces_are_told_apart_by_their_bytes_and_captions(tmp_path: Path) -> None:
    first, second = (load_face_set(faces_in(tmp_path / name, seed), size=64) for name, seed in (("a", 0), ("b", 1)))
    again = load_face_set(tmp_path / "a", size=64)
    assert first.ids == second.ids
    assert face_identity(first) == face_identity(again) != face_identity(second)
    assert face_identity(replace(first, captions=("A person.", None, None, None))) != face_identity(first)
    assert face_identity(mix([first, second], [1, 1])) != face_identity(mix([first, second], [2, 1]))


def test_cached_pairs_of_other_faces_are_made_anew(tmp_path: Path) -> None:
    """The same seed and the same names, other pictures."""
    pipeline = load_preset_pipeline("tiny")

    def targets(data: Path) -> np.ndarray:
        config = PairsConfig(data=(data,), output_dir=tmp_path / "work", pairs=4, learning_rate=1e-3, **TINY)
        return np.array(latent_pairs(pipeline, config, lambda _: None).targets)

    first = targets(faces_in(tmp_path / "a", 0))
    second = targets(faces_in(tmp_path / "b", 1))
    assert not np.array_equal(first, second)
    assert np.array_equal(targets(tmp_path / "a"), first)


def test_a_run_goes_on_with_its_own_faces_and_settings_alone(tmp_path: Path) -> None:
    one, other = faces_in(tmp_path / "a", 0), faces_in(tmp_path / "b", 1)
    settings = {**TINY, "output_dir": tmp_path / "work", "crop": 32}
    autoencoder.run(autoencoder.Config(data=(one,), **settings))
    for changed, name in (({"data": (other,)}, "data"), ({"data": (one,), "learning_rate": 0.1}, "learning_rate")):
        with pytest.raises(InvalidInputError, match=name):
            autoencoder.run(autoencoder.Config(**{**settings, **changed}))
    written = (tmp_path / "work" / "autoencoder" / "run.json").read_bytes()
    autoencoder.run(autoencoder.Config(data=(one,), **settings))
    assert (tmp_path / "work" / "autoencoder" / "run.json").read_bytes() == written
    longer = autoencoder.run(autoencoder.Config(data=(one,), **{**settings, "steps": 3}))
    assert longer.step == 3


def test_an_encoder_s_pairs_are_of_its_faces(tmp_path: Path) -> None:
    one, other = faces_in(tmp_path / "a", 0), faces_in(tmp_path / "b", 1)
    work = tmp_path / "work"
    autoencoder.run(autoencoder.Config(data=(one,), output_dir=work, crop=32, **TINY))
    settings = {**TINY, "output_dir": work, "pairs": 4, "perceptual_weight": 0.0, "identity_weight": 0.0}
    settings["features_weight"] = 0.0
    encoder.run(encoder.Config(data=(one,), **settings))
    kept = np.load(work / "runs" / "encoder_pairs" / "targets.npy")
    with pytest.raises(InvalidInputError, match="data"):
        encoder.run(encoder.Config(data=(other,), **settings))
    made = np.load(work / "runs" / "encoder_pairs" / "targets.npy")
    assert not np.array_equal(kept, made)


def test_all_stages_refuse_finished_components_of_another_run(tmp_path: Path) -> None:
    one, other = faces_in(tmp_path / "a", 0), faces_in(tmp_path / "b", 1)
    work = tmp_path / "work"
    autoencoder.run(autoencoder.Config(data=(one,), output_dir=work, crop=32, **TINY))
    config = autoencoder.Config(data=(one,), output_dir=work, crop=32, **TINY)
    faces = {data: face_identity(mix([load_face_set(data, size=64)])) for data in (one, other)}

    def finished(config: autoencoder.Config, data: Path) -> bool:
        record = json.loads((work / "autoencoder" / "run.json").read_text())
        assert record["stage"] == "autoencoder"
        known = record["identity"]["data"] if data == one else faces[other]
        return everything.finished_before(config, "autoencoder", "autoencoder", lambda _: known)

    assert finished(config, one)
    assert not finished(replace(config, steps=5), one)
    with pytest.raises(InvalidInputError, match="data"):
        finished(config, other)
    with pytest.raises(InvalidInputError, match="crop"):
        finished(replace(config, crop=16), one)


def test_a_stage_that_starts_again_on_another_tokenizer_is_refused(tmp_path: Path) -> None:
    data, work = faces_in(tmp_path / "a", 0), tmp_path / "work"
    for seed in (0, 1):
        build_pipeline(load_preset("tiny"), seed=seed).image_tokenizer.save_pretrained(work / "image_tokenizer")
        config = semantic.Config(data=(data,), output_dir=work, **TINY)
        if seed == 0:
            semantic.run(config)
        else:
            with pytest.raises(InvalidInputError, match=r"weights\.image_tokenizer"):
                semantic.run(config)
