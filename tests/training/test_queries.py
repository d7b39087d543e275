"""An LQ encoder that takes the latent queries: trained behind the semantic branch, and heard in the pipeline."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.pipeline.presets import load_preset
from prefrestore.training import autoencoder, encoder, fidelity, semantic, tokenizer
from prefrestore.training.encoder_pairs import EncoderPairs
from prefrestore.training.loop import Trainer
from prefrestore.training.working import working_pipeline


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Pictures with a caption and phrases, the preset tiny with an encoder that takes queries, and earlier stages."""
    root = tmp_path_factory.mktemp("queries")
    data, work, preset = root / "data", root / "work", root / "listening.json"
    data.mkdir()
    rng = np.random.default_rng(0)
    for k in range(6):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(data / f"face_{k}.png"), cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC))
    rows = [{"id": f"face_{k}", "caption": f"Wall {k}.", "phrases": ["glasses", "no glasses"]} for k in range(6)]
    (data / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tiny = Path(encoder.__file__).parents[1] / "pipeline" / "configs" / "tiny.json"
    told = json.loads(tiny.read_text())
    told["components"]["lq_encoder"]["query_features"] = told["components"]["language_model"]["hidden_size"]
    preset.write_text(json.dumps(told | {"name": "listening"}))
    common = {"data": (data,), "output_dir": work, "preset": str(preset), "steps": 2, "batch_size": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFRESTORE_CACHE", str(root / "cache"))
        autoencoder.run(autoencoder.Config(**common, crop=32))
        tokenizer.run(tokenizer.Config(**common))
        semantic.run(semantic.Config(**common))
    return data, work, preset


def settings(workshop: tuple[Path, Path, Path], **changes: object) -> encoder.Config:
    data, work, preset = workshop
    plain = {"perceptual_weight": 0.0, "identity_weight": 0.0, "features_weight": 0.0, "pairs": 8, "batch_size": 4}
    told = {"data": (data,), "output_dir": work, "preset": str(preset), "steps": 6, "mixed_precision": "no"}
    return encoder.Config(**{**told, **plain, **changes})


def test_the_encoder_learns_to_listen_and_the_pipeline_lets_it(
    workshop: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))
    said: list[str] = []
    encoder.run(settings(workshop), log=said.append)
    assert any("without queries" in line for line in said)
    fidelity.run(
        fidelity.Config(
            data=(workshop[0],), output_dir=workshop[1], preset=str(workshop[2]), steps=2, batch_size=2, pairs=8,
            perceptual_weight=0.0, identity_weight=0.0, features_weight=0.0,
        )
    )  # fmt: skip
    pipeline = working_pipeline(str(workshop[2]), workshop[1], {})
    images = pipeline.prepare(np.full((64, 64, 3), 90, np.uint8))
    heard = pipeline.conditions(images).lq_latents
    silent = pipeline.conditions(images, queries=torch.zeros_like(pipeline.encode_semantics(images, [None])))
    assert not torch.equal(heard, silent.lq_latents)
    assert torch.equal(pipeline.encode_texture(images, pipeline.encode_semantics(images, [None])), heard)


def test_dropped_true_and_written_queries_come_in_their_shares(
    workshop: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    config = settings(workshop, batch_size=400, query_dropout=0.25, true_share=0.25)
    pairs = EncoderPairs(config, None, None, torch.device("cpu"), branch=object())  # type: ignore[arg-type]
    ones = np.ones((8, 3, 2), np.float16)
    pictures = np.zeros((8, 8, 8, 3), np.uint8)
    pairs.arrays = {"lq_latents": ones, "clean_latents": ones, "lq": pictures, "targets": pictures}
    pairs.arrays |= {"written": ones, "true": 2 * ones}
    values = pairs.batch(3)["queries"][:, 0, 0]
    shares = [(values == kind).float().mean().item() for kind in (0, 1, 2)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.07)
    assert torch.equal(pairs.batch(3)["queries"], pairs.batch(3)["queries"])


def test_without_a_language_model_it_says_what_is_missing(
    workshop: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "autoencoder").symlink_to(workshop[1] / "autoencoder")
    with pytest.raises(WeightsError, match="tokenizer"):
        encoder.run(settings(workshop, output_dir=tmp_path))


def test_a_language_model_goes_on_from_another_folder(
    workshop: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))
    data, work, preset = workshop
    (tmp_path / "image_tokenizer").symlink_to(work / "image_tokenizer")
    told = {"data": (data,), "output_dir": tmp_path, "preset": str(preset), "steps": 1, "batch_size": 2}
    trainer = semantic.run(semantic.Config(**told, start_from=work, learning_rate=0.0))
    before = working_pipeline(str(preset), work, {"lq_encoder": "new", "transformer": "new", "connectors": "new"})
    after = dict(trainer.objective.language_model.named_parameters())  # type: ignore[union-attr]
    for name, value in before.language_model.named_parameters():
        assert torch.allclose(value, after[name], atol=1e-6), name
    assert load_preset(str(preset)).name == "listening"


def test_the_language_model_learns_with_the_encoder(
    workshop: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))
    for name in ("autoencoder", "image_tokenizer", "text_tokenizer", "language_model"):
        shutil.copytree(workshop[1] / name, tmp_path / name)
    before = load_file(tmp_path / "language_model" / "model.safetensors")
    seen: list[dict[str, float]] = []
    step = Trainer.train_step

    def watched(trainer: Trainer, *batches: object) -> dict[str, float]:
        losses = step(trainer, *batches)
        seen.append(losses)
        return losses

    monkeypatch.setattr(Trainer, "train_step", watched)
    trainer = encoder.run(settings(workshop, output_dir=tmp_path, language_weight=0.5))
    assert {"cross_entropy", "accuracy", "latent"} <= set(seen[0])
    assert seen[0]["loss"] == pytest.approx(seen[0]["latent"] + 0.5 * seen[0]["cross_entropy"], rel=1e-5)
    after = load_file(tmp_path / "language_model" / "model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in before)
    again = encoder.run(settings(workshop, output_dir=tmp_path, language_weight=0.5))  # changes nothing
    assert again.step == trainer.step and len(seen) == trainer.step
    kept = load_file(tmp_path / "language_model" / "model.safetensors")
    assert all(torch.equal(kept[name], after[name]) for name in after)
    told = {text for k in range(30) for text in trainer.make_batch(k)["captions"]}
    assert {None, "glasses", "no glasses"} < told


def test_a_language_weight_asks_for_an_encoder_that_listens(
    workshop: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InvalidInputError, match="queries"):
        encoder.run(settings(workshop, preset="tiny", language_weight=1.0))


def test_pairs_of_far_latents_may_come_more_often(workshop: tuple[Path, Path, Path], tmp_path: Path) -> None:
    config = settings(workshop, output_dir=tmp_path, batch_size=600, pairs=4, severe_first=1.0)
    pairs = EncoderPairs(config, _NoFaces(), nn.Identity(), torch.device("cpu"), branch=None)  # type: ignore[arg-type]
    far = np.array([0.0, 1.0, 1.0, 2.0]).reshape(4, 1, 1, 1)
    held = {"lq_latents": far, "clean_latents": 0 * far}
    held |= dict.fromkeys(("lq", "targets"), np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1).repeat(3, axis=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prefrestore.training.encoder_pairs.cached_pairs", lambda *args, **kwargs: held)
        pairs.fill("faces", print)
    which = ((pairs.batch(0)["images"][:, 0, 0, 0] + 1) * 127.5).round()
    shares = [(which == k).float().mean().item() for k in range(4)]
    assert shares == pytest.approx([0, 1 / 6, 1 / 6, 4 / 6], abs=0.06)


class _NoFaces:
    """Stands for faces that nobody asks for."""


def test_a_codebook_that_the_cache_cannot_hold_is_refused(
    workshop: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("prefrestore.training.encoder_pairs.MOST_CODES", 8)
    for name in ("autoencoder", "image_tokenizer", "text_tokenizer", "language_model"):
        (tmp_path / name).symlink_to(workshop[1] / name)
    with pytest.raises(InvalidInputError, match="codebooks of 8"):
        encoder.run(settings(workshop, output_dir=tmp_path, language_weight=0.5))
