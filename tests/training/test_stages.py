"""Every training stage at tiny scale, from pictures to a pipeline folder that loads and restores."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from prefrestore.metrics.sface import SFaceNetwork
from prefrestore.models.texture import conditioning
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.training import encoder, everything
from prefrestore.training.discriminator import LatentDiscriminator
from prefrestore.training.flow_objective import FlowLosses, FlowObjective
from prefrestore.training.likeness import LikenessLoss
from prefrestore.training.loop import Trainer


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A folder of smooth 64 px pictures with captions, and what the whole recipe makes of it in a few steps."""
    root = tmp_path_factory.mktemp("workshop")
    data, work, pipe = root / "data", root / "work", root / "pipe"
    data.mkdir()
    rng = np.random.default_rng(0)
    for k in range(6):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(data / f"face_{k}.png"), cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC))
    lines = [json.dumps({"id": f"face_{k}", "caption": f"A person in front of wall {k}."}) for k in range(6)]
    (data / "captions.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFRESTORE_CACHE", str(root / "cache"))
        overrides: dict[str, dict[str, object]] = {
            component: {"batch_size": 4} for component in ("lq_encoder", "image_tokenizer", "language_model")
        }
        overrides["lq_encoder"] |= {"pairs": 8, "perceptual_weight": 0.0, "decoded_margin": 1}
        overrides["autoencoder"] = {"batch_size": 4, "crop": 32}
        # LPIPS needs weights that a stranger's machine does not have.
        overrides["transformer"] = {"batch_size": 4, "pairs": 8, "perceptual_weight": 0.0}
        config = everything.Config(data=(data,), output_dir=work, destination=pipe, preset="tiny", steps_scale=1e-9)
        everything.run(config, overrides=overrides)
    return data, work, pipe


def test_the_recipe_makes_a_pipeline_that_restores(workshop: tuple[Path, Path, Path]) -> None:
    pipeline = load_preset_pipeline("tiny", folder=workshop[2])
    face = np.full((64, 64, 3), 128, np.uint8)
    restored = pipeline(face, generator=torch.Generator().manual_seed(0), output_type="np").images
    assert restored.shape == (1, 64, 64, 3) and np.isfinite(restored).all()
    assert not [file for file in workshop[2].glob("*/config.json") if str(workshop[1]) in file.read_text()]
    for stage in ("autoencoder", "encoder", "tokenizer", "semantic", "fidelity"):
        run = workshop[1] / "runs" / stage
        assert list((run / "samples").glob("*.png")), stage
        rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        assert rows[-1]["step"] == 2 and np.isfinite(rows[-1]["loss"])


def test_a_killed_encoder_run_resumes_to_the_same_losses(
    workshop: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, work, _ = workshop
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))

    def folder(name: str) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "autoencoder").symlink_to(work / "autoencoder")
        return tmp_path / name

    def settings(output: Path) -> encoder.Config:
        return encoder.Config(
            data=(data,), output_dir=output, preset="tiny", steps=8, batch_size=2, save_every=3, pairs=8,
            mixed_precision="no", perceptual_weight=0.0, decoded_margin=1,
        )  # fmt: skip

    seen: list[float] = []
    step = Trainer.train_step

    def recorded(trainer: Trainer, batch: dict[str, object]) -> dict[str, float]:
        if kill_at is not None and trainer.step == kill_at:
            raise KeyboardInterrupt
        values = step(trainer, batch)
        seen.append(values["loss"])
        return values

    monkeypatch.setattr(Trainer, "train_step", recorded)
    kill_at: int | None = None
    encoder.run(settings(folder("whole")))
    whole, cut = list(seen), folder("cut")
    kill_at = 5
    with pytest.raises(KeyboardInterrupt):
        encoder.run(settings(cut))
    seen.clear()
    kill_at = None
    encoder.run(settings(cut))
    assert len(whole) == 8 and seen == whole[3:]


def test_the_flow_loss_by_hand() -> None:
    """A denoiser that answers zero leaves the loss at the mean square of ``x_1 - x_0``."""
    pipeline = load_preset_pipeline("tiny")
    torch.nn.init.zeros_(pipeline.transformer.proj_out.weight)
    torch.nn.init.zeros_(pipeline.transformer.proj_out.bias)
    objective = FlowObjective(
        pipeline.transformer, pipeline.connectors, FlowLosses(minimum_time=1e-4, rollout_share=0),
        noise_scale=0.0, residual_std=None, start_from_lq=True,
    )  # fmt: skip
    lq, clean = torch.full((2, 4, 8, 8), 3.0), torch.full((2, 4, 8, 8), 1.0)
    queries = torch.zeros(2, pipeline.image_tokenizer.num_tokens + 1, pipeline.language_model.config.hidden_size)
    images = torch.zeros(2, 3, 64, 64)
    with torch.no_grad():
        losses = objective(lq, clean, queries, images, generator=torch.Generator().manual_seed(0))
    assert losses["flow"].item() == pytest.approx(4.0)


def test_dropped_conditions_are_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load_preset_pipeline("tiny")
    seen: list[Tensor] = []

    def denoise(transformer: object, x_t: Tensor, t: Tensor, condition: Tensor, lq_latents: Tensor) -> Tensor:
        seen.append(condition)
        return torch.zeros_like(x_t)

    monkeypatch.setattr(conditioning, "denoise", denoise)
    latents, images = torch.randn(2, 4, 8, 8), torch.zeros(2, 3, 64, 64)
    length = pipeline.image_tokenizer.num_tokens + 1
    queries = torch.randn(2, length, pipeline.language_model.config.hidden_size)
    for condition, query in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0)):
        objective = FlowObjective(
            pipeline.transformer, pipeline.connectors,
            FlowLosses(condition_dropout=condition, query_dropout=query, rollout_share=0),
            noise_scale=0.4, residual_std=None, start_from_lq=True,
        )  # fmt: skip
        objective(latents, latents, queries, images, generator=torch.Generator().manual_seed(0))
    assert not seen[0].any()
    silent = pipeline.connectors.diffusion_connector(torch.zeros_like(queries))
    assert torch.allclose(seen[1][:, :length], silent) and seen[1][:, length:].any()
    assert not torch.allclose(seen[2][:, :length], silent)


def test_a_face_that_is_its_target_has_no_identity_loss_and_trains_the_decoder() -> None:
    pipeline = load_preset_pipeline("tiny")
    pipeline.autoencoder.patch_decoder.requires_grad_(True)
    objective = FlowObjective(
        pipeline.transformer, pipeline.connectors, FlowLosses(identity_share=0.5), noise_scale=0.3, residual_std=None,
        start_from_lq=True, autoencoder=pipeline.autoencoder, identity=LikenessLoss(SFaceNetwork()),
    )  # fmt: skip
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    queries = torch.zeros(2, pipeline.image_tokenizer.num_tokens + 1, pipeline.language_model.config.hidden_size)
    losses = objective(latents, latents, queries, images, generator=generator)
    losses["loss"].backward()
    assert losses["loss"].item() == pytest.approx(
        losses["flow"].item() + 0.5 * losses["identity"].item() + losses["features"].item() + losses["decoder"].item(),
        rel=1e-5,
    )
    assert pipeline.autoencoder.patch_decoder.weight.grad.abs().sum() > 0


def test_early_times_and_the_bound_of_late_ones_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load_preset_pipeline("tiny")
    asked: list[Tensor] = []

    def denoise(transformer: object, x_t: Tensor, t: Tensor, condition: Tensor, lq_latents: Tensor) -> Tensor:
        asked.append(t)
        return torch.zeros_like(x_t)

    monkeypatch.setattr(conditioning, "denoise", denoise)
    lq, clean = torch.full((4, 4, 8, 8), 3.0), torch.full((4, 4, 8, 8), 1.0)
    queries = torch.zeros(4, pipeline.image_tokenizer.num_tokens + 1, pipeline.language_model.config.hidden_size)
    objective = FlowObjective(
        pipeline.transformer, pipeline.connectors, FlowLosses(start_share=0.5, minimum_time=0.9, rollout_share=0),
        noise_scale=0.0, residual_std=None, start_from_lq=True,
    )  # fmt: skip
    losses = objective(lq, clean, queries, torch.zeros(4, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    t = torch.rand(4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(asked[0], torch.tensor([1, 1, t[2], t[3]]))
    # The velocity is 2 everywhere and the answer 0; below t = 0.9 the error counts t / 0.9 times.
    assert losses["flow"].item() == pytest.approx(4 * float((asked[0] / 0.9).clamp(max=1).square().mean()))


def test_the_judge_adds_a_gradient_of_the_length_that_was_asked_for() -> None:
    pipeline = load_preset_pipeline("tiny")
    pipeline.transformer.requires_grad_(True)
    judge = LatentDiscriminator(4, widths=(8, 8))
    generator = torch.Generator().manual_seed(0)
    lq, clean = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2))
    queries = torch.zeros(2, pipeline.image_tokenizer.num_tokens + 1, pipeline.language_model.config.hidden_size)

    def bias_gradient(weight: float, step: int, judged: bool = True) -> tuple[dict[str, Tensor], Tensor]:
        pipeline.transformer.zero_grad()
        told = FlowLosses(
            start_share=1.0, rollout_share=0, minimum_time=1.0, adversarial_weight=weight, adversarial_warmup=10
        )
        objective = FlowObjective(
            pipeline.transformer, pipeline.connectors, told, noise_scale=0.3, residual_std=0.5, start_from_lq=True,
            discriminator=judge if judged else None,
        )  # fmt: skip
        losses = objective(
            lq, clean, queries, torch.zeros(2, 3, 64, 64), generator=torch.Generator().manual_seed(1), step=step
        )
        losses["loss"].backward()
        return losses, pipeline.transformer.proj_out.weight.grad.clone()

    _, alone = bias_gradient(0, 0, judged=False)
    losses, cold = bias_gradient(1, 0)
    assert torch.allclose(cold, alone)  # nothing yet at the first step
    assert losses["loss"].item() == pytest.approx((losses["flow"] + losses["discriminator"]).item())
    half, full = (bias_gradient(1, step)[1] - alone for step in (5, 10))
    assert torch.allclose(full, 2 * half, atol=1e-7) and full.norm() > 0.01 * alone.norm()
    assert all(p.grad is not None for p in judge.parameters())


def test_part_of_a_batch_is_where_the_sampler_goes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load_preset_pipeline("tiny")
    asked: list[tuple[Tensor, Tensor]] = []

    def denoise(transformer: object, x_t: Tensor, t: Tensor, condition: Tensor, lq_latents: Tensor) -> Tensor:
        asked.append((x_t, t))
        return torch.full_like(x_t, 2.0)

    monkeypatch.setattr(conditioning, "denoise", denoise)
    lq, clean = torch.full((4, 4, 8, 8), 3.0), torch.full((4, 4, 8, 8), 1.0)
    queries = torch.zeros(4, pipeline.image_tokenizer.num_tokens + 1, pipeline.language_model.config.hidden_size)
    objective = FlowObjective(
        pipeline.transformer, pipeline.connectors, FlowLosses(start_share=0.5, rollout_share=0.5, minimum_time=0.25),
        noise_scale=0.0, residual_std=None, start_from_lq=True,
    )  # fmt: skip
    losses = objective(lq, clean, queries, torch.zeros(4, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    (first, times), (points, at) = asked
    assert (first == 3).all() and times.tolist() == [1, 1]  # the sampler's own first step, from the source
    # A velocity of 2 for half the way leads from 3 to 2, where its estimate is 1: the clean latent. At t = 1 as well.
    assert at.tolist() == [0.5, 0.5, 1, 1] and (points[:2] == 2).all() and (points[2:] == 3).all()
    assert losses["flow"].item() == 0
