"""Exact resumption, the schedule, the moving average, and what a broken checkpoint does."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.training.loop import Trainer
from prefrestore.training.schedule import LoopConfig, learning_rate_at, step_generator
from prefrestore.training.stage import StageConfig


class Toy(nn.Module):
    """A noisy regression, so that both the batch and the step's generator matter."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layer = nn.Linear(3, width)
        with torch.no_grad():
            self.layer.weight.fill_(0.1)
            self.layer.bias.zero_()

    def forward(self, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        noise = torch.randn(x.shape, generator=generator)
        return {"loss": (self.layer(x + noise) - 1).square().mean()}


def toy_batch(step: int) -> dict[str, Tensor]:
    return {"x": torch.randn(8, 3, generator=torch.Generator().manual_seed(step))}


def config(folder: Path, **changes: object) -> LoopConfig:
    base = LoopConfig(output_dir=folder, steps=60, batch_size=8, learning_rate=1e-2, save_every=10, warmup_steps=5)
    return replace(base, **changes)  # type: ignore[arg-type]


def losses(trainer: Trainer) -> list[float]:
    return [row["loss"] for row in trainer.fit()]


def test_a_killed_run_resumes_to_the_same_losses(tmp_path: Path) -> None:
    whole = losses(Trainer(Toy(), toy_batch, config(tmp_path / "whole")))
    stopped = Trainer(Toy(), toy_batch, config(tmp_path / "cut"))
    for step in range(10):
        stopped.train_step(toy_batch(step))
    stopped.save()
    for step in range(10, 13):  # lost with the kill: only the checkpoint counts
        stopped.train_step(toy_batch(step))
    resumed = losses(Trainer(Toy(), toy_batch, config(tmp_path / "cut")))
    assert len(resumed) == 50 and resumed == whole[10:]


def test_worker_processes_change_nothing(tmp_path: Path) -> None:
    alone = losses(Trainer(Toy(), toy_batch, config(tmp_path / "a", steps=6)))
    assert losses(Trainer(Toy(), toy_batch, config(tmp_path / "b", steps=6, num_workers=1))) == alone


def test_the_log_says_how_long_the_run_waited_for_data(tmp_path: Path) -> None:
    def slow_batch(step: int) -> dict[str, Tensor]:
        time.sleep(0.2)
        return toy_batch(step)

    shares = []
    for name, make_batch in (("quick", toy_batch), ("slow", slow_batch)):
        Trainer(Toy(), make_batch, config(tmp_path / name, steps=4, log_every=2)).fit()
        rows = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        assert all(0 <= row["waiting_for_data"] <= 1 for row in rows)
        shares.append(rows[-1]["waiting_for_data"])
    assert shares[1] > max(shares[0], 0.3)


def test_the_schedule_by_hand(tmp_path: Path) -> None:
    settings = config(tmp_path, steps=105, warmup_steps=5, learning_rate=1.0, final_lr_ratio=0.1)
    assert learning_rate_at(0, settings) == pytest.approx(0.2)
    assert learning_rate_at(5, settings) == pytest.approx(1.0)
    assert learning_rate_at(55, settings) == pytest.approx(0.55)
    assert learning_rate_at(105, settings) == pytest.approx(0.1)


def test_the_average_is_put_in_place_and_taken_out(tmp_path: Path) -> None:
    trainer = Trainer(Toy(), toy_batch, config(tmp_path))
    before = trainer.trained["layer.bias"].detach().clone()
    trainer.train_step(toy_batch(0))
    after = trainer.trained["layer.bias"].detach().clone()
    decay = 2 / 11  # (1 + step) / (10 + step) at step 1
    with trainer.averaged_weights():
        assert torch.allclose(trainer.trained["layer.bias"], decay * before + (1 - decay) * after)
    assert torch.equal(trainer.trained["layer.bias"], after)


def test_step_generators_differ_by_seed_step_and_rank() -> None:
    draws = {
        torch.rand(1, generator=step_generator(*key)).item() for key in ((0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1))
    }
    assert len(draws) == 4


def test_wrong_checkpoints_and_settings_are_refused(tmp_path: Path) -> None:
    trainer = Trainer(Toy(), toy_batch, config(tmp_path))
    trainer.save()
    with pytest.raises(InvalidInputError):
        Trainer(Toy(), toy_batch, config(tmp_path, steps=0))
    with pytest.raises(WeightsError):
        Trainer(nn.Sequential(Toy()), toy_batch, config(tmp_path))
    with pytest.raises(InvalidInputError):
        Trainer(Toy().requires_grad_(False), toy_batch, config(tmp_path / "none"))


@pytest.mark.parametrize(("able", "precision"), [({"avx512_bf16": True}, "bf16"), ({"avx2": True}, "no")])
def test_bf16_is_the_default_where_the_cpu_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, able: dict[str, bool], precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    settings = StageConfig(data=(), output_dir=tmp_path, steps=1, batch_size=1, learning_rate=1e-3)
    assert settings.mixed_precision == settings.loop("stage").mixed_precision == precision
    asked = StageConfig(data=(), output_dir=tmp_path, steps=1, batch_size=1, learning_rate=1e-3, mixed_precision="bf16")
    assert asked.mixed_precision == "bf16"
