"""The preference stage at tiny scale: every objective moves the adapter, resumes, and refuses what it cannot do."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from prefrestore.errors import InvalidInputError, MissingDependencyError, WeightsError
from prefrestore.models.adapter import INPUT, WEIGHTS, adapter_tensors, add_adapter
from prefrestore.preference import trainer as preference
from prefrestore.preference.objectives import group_distances, group_means
from prefrestore.preference.policy import OBJECTIVES as OBJECTIVE_CLASSES
from prefrestore.preference.policy import PolicyObjective
from prefrestore.preference.rewards import build_mix
from prefrestore.preference.rewards.base import RewardContext
from prefrestore.training.latents import latent_pairs
from prefrestore.training.loop import Trainer

OBJECTIVES = {
    "nft": {},
    "grpo": {"sample_steps": 3},
    "reward-gradient": {
        "sample_steps": 2,
        "solver": "euler",
        "gradient_steps": 2,
        "anchor_weight": 0.5,
        "rewarded": 1,
        "targets": "attention+input",
    },
}


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of smooth 64 px pictures, and a cache of its own."""
    root = tmp_path_factory.mktemp("preference")
    (root / "data").mkdir()
    rng = np.random.default_rng(0)
    for k in range(4):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(root / "data" / f"face_{k}.png"), cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFRESTORE_CACHE", str(root / "cache"))
        yield root / "data"


def _config(faces: Path, output: Path, objective: str = "nft", **changes: Any) -> preference.Config:
    settings: dict[str, Any] = {
        "rewards": "psnr=1",
        "held_out": "identity",
        "held_out_tolerance": 5.0,
        "held_out_faces": 2,
        "held_out_every": 1,
        "steps": 3,
        "batch_size": 2,
        "group_size": 3,
        "pairs": 8,
        "rank": 2,
        "alpha": 4,
        "kl_weight": 0.1,
        "entropy_weight": 0.5,
        "mixed_precision": "no",
        "tracker": "none",
        "save_every": 1,
    }
    settings |= OBJECTIVES[objective] | changes
    return preference.Config(data=(faces,), output_dir=output, preset="tiny", objective=objective, **settings)


def _policy(config: preference.Config, psnr: float = 1.0) -> tuple[PolicyObjective, dict[str, Tensor]]:
    """The objective of a run over a denoiser that heeds its input, and a batch of two pairs for it."""
    pipeline = preference.load_base(config)
    torch.nn.init.normal_(pipeline.transformer.proj_out.weight, generator=torch.Generator().manual_seed(0))
    for name in ("old", "default"):
        add_adapter(pipeline.transformer, name, rank=2, alpha=4)
    policy = OBJECTIVE_CLASSES[config.objective](pipeline, build_mix({"psnr": psnr}), config.policy())
    batch = latent_pairs(pipeline, config, print).batch(np.arange(2))
    del batch["clean_latents"]
    return policy, batch


def _told(policy: PolicyObjective, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The losses of the batch, with the same noise at each call."""
    return policy(**batch, captions=[None, None], generator=torch.Generator().manual_seed(3))


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """The losses of every training step, in order; a run is killed before the step that ``kill_at`` names."""
    seen: list[dict[str, float]] = []
    step = Trainer.train_step

    def recorded(trainer: Trainer, batch: dict[str, object]) -> dict[str, float]:
        if trainer.step == kill_at(trainer):
            raise KeyboardInterrupt
        seen.append(step(trainer, batch))
        return seen[-1]

    def kill_at(trainer: Trainer) -> int | None:
        marker = Path(trainer.config.output_dir).parents[1] / "kill_at"
        return int(marker.read_text()) if marker.is_file() else None

    monkeypatch.setattr(Trainer, "train_step", recorded)
    return seen


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_killed_and_resumed_it_ends_as_if_it_had_not_been(
    faces: Path, tmp_path: Path, losses: list[dict[str, float]], objective: str
) -> None:
    preference.run(_config(faces, tmp_path / "whole", objective))
    whole = list(losses)
    assert len(whole) == 3 and all(np.isfinite(row["loss"]) for row in whole)
    losses.clear()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "kill_at").write_text("2")
    with pytest.raises(KeyboardInterrupt):
        preference.run(_config(faces, tmp_path / "cut", objective))
    (tmp_path / "cut" / "kill_at").unlink()
    preference.run(_config(faces, tmp_path / "cut", objective))
    assert losses == whole
    adapters = [load_file(tmp_path / name / "preference" / "adapter_model.safetensors") for name in ("whole", "cut")]
    assert all(torch.equal(value, adapters[1][key]) for key, value in adapters[0].items())
    assert any(value.abs().max() > 0 for key, value in adapters[0].items() if "lora_B" in key), "nothing was learnt"
    recipe = json.loads((tmp_path / "whole" / "preference" / "training.json").read_text())
    assert recipe["objective"] == objective and recipe["steps"] == 3
    assert str(tmp_path) not in json.dumps(recipe)


def test_the_held_out_reward_stops_the_run(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([0.9, 0.9, 0.5, 0.1, 0.0, 0.0, 0.0])
    monkeypatch.setattr("prefrestore.preference.rewards.guard.HeldOutGuard.measure", lambda *_: next(readings))
    told: list[str] = []
    config = _config(faces, tmp_path, steps=6, held_out_tolerance=0.1, held_out_patience=2)
    assert preference.run(config, log=told.append).step == 3
    assert "the held-out reward fell from 0.9" in told[-1]
    assert preference.run(config, log=told.append).step == 3, "a stopped run stays stopped"


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_step_down_the_loss_lowers_it(faces: Path, tmp_path: Path, objective: str) -> None:
    """The same noise before and after: only the adapter has changed."""
    config = _config(faces, tmp_path, objective, kl_weight=0.0, beta=1.0)
    policy, batch = _policy(config)

    def loss() -> Tensor:
        return _told(policy, batch)["loss"]

    before = loss()
    before.backward()
    tensors = [value for value in adapter_tensors(policy.transformer, "default").values() if value.grad is not None]
    norm = torch.stack([value.grad.norm() for value in tensors]).norm()
    assert norm > 0
    if objective == "grpo":
        return  # its samples come from the policy itself: another adapter, another loss
    with torch.no_grad():
        for value in tensors:
            value -= 0.05 * value.grad / norm
    assert loss() < before


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"objective": "nft", "group_size": 1}, InvalidInputError, "a group is two restorations or more"),
        ({"objective": "grpo", "group_size": 1}, InvalidInputError, "a group is two restorations or more"),
        ({"objective": "reward-gradient", "group_size": 1, "entropy_weight": 1.0}, InvalidInputError, "two restor"),
        ({"objective": "reward-gradient", "group_size": 0}, InvalidInputError, "one restoration or more"),
        ({"objective": "grpo", "sample_steps": 1}, InvalidInputError, "two sampling steps"),
        ({"objective": "reward-gradient", "rewards": "landmarks=1"}, InvalidInputError, "landmarks5 has no gradients"),
        ({"objective": "nft", "held_out": "psnr"}, InvalidInputError, "cannot be held out"),
        ({"objective": "nft", "rewards": "beauty=1"}, InvalidInputError, "no reward 'beauty'"),
        ({"objective": "nft", "rewards": "lpips=1"}, (WeightsError, MissingDependencyError), "LPIPS|lpips"),
        ({"objective": "nft", "tracker": "crystal"}, InvalidInputError, "no tracker 'crystal'"),
        ({"objective": "nft", "targets": "everything"}, InvalidInputError, "targets are one of attention"),
        ({"objective": "nft", "noise_gain_after": 0.1}, InvalidInputError, "input among their targets"),
        ({"objective": "nft", "targets": "input", "noise_gain_after": 2.0}, InvalidInputError, "lies in 0..1"),
        ({"objective": "nft", "anchor_weight": 1.0}, InvalidInputError, "reward-gradient alone"),
        ({"objective": "reward-gradient", "rewarded": 4}, InvalidInputError, "of a group of 3"),
    ],
)
def test_what_cannot_work_is_told_before_the_first_step(
    faces: Path, tmp_path: Path, losses: list[dict[str, float]], changes: dict[str, Any], error: type, words: str
) -> None:
    with pytest.raises(error, match=words):
        preference.run(_config(faces, tmp_path, **changes))
    assert not losses


def test_reward_gradients_need_no_group(faces: Path, tmp_path: Path, losses: list[dict[str, float]]) -> None:
    preference.run(_config(faces, tmp_path, "reward-gradient", group_size=1, entropy_weight=0.0, steps=1))
    assert losses[0]["latent_std"] == 0 and np.isfinite(losses[0]["loss"])


def test_the_written_adapter_has_the_noise_gain_after(faces: Path, tmp_path: Path) -> None:
    """Training moves the input's part; what is written has it as `add_adapter` makes it, and the rest as trained."""
    for after, output in ((None, tmp_path / "moved"), (0.25, tmp_path / "put_back")):
        config = _config(faces, output, targets="attention+input", noise_gain=0.5, noise_gain_after=after, steps=1)
        preference.run(config)
    moved, put_back = (load_file(tmp_path / run / "preference" / WEIGHTS) for run in ("moved", "put_back"))
    transformer = preference.load_base(config).transformer
    add_adapter(transformer, "fresh", rank=2, alpha=4, targets="attention+input", noise_gain=0.25)
    fresh = adapter_tensors(transformer, "fresh")
    for name, value in put_back.items():
        if INPUT in name:
            expected = fresh[name.removeprefix("base_model.model.")]
            assert torch.allclose(value.float(), expected, atol=1e-3) and not torch.equal(value, moved[name])
        else:
            assert torch.equal(value, moved[name])


def test_the_default_tracker_is_told_the_curves(faces: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="it comes with the extra `train`")
    preference.run(_config(faces, tmp_path, steps=1, tracker=preference.Config.tracker))
    (events,) = (tmp_path / "runs" / "preference").rglob("events.out.tfevents.*")
    assert b"reward_psnr" in events.read_bytes()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_rewards_see_what_the_preset_s_fidelity_gives(faces: Path, tmp_path: Path, objective: str) -> None:
    """At fidelity 1 a user gets the LQ latents, whatever the policy draws; so the rewards are theirs."""
    config = _config(faces, tmp_path, objective)
    policy, batch = _policy(config)
    policy.pipeline.register_to_config(fidelity=1.0)
    told = _told(policy, batch)
    context = RewardContext(reference=batch["targets"].add(1).div(2))
    expected = policy.mix.score(policy.pipeline.decode(batch["lq_latents"]), context)["psnr"].mean()
    assert told["reward_psnr"].item() == pytest.approx(expected.item(), abs=1e-4)


def test_group_distances_by_hand() -> None:
    """Groups (0, 2) and (5,): means 1 and 5, squared distances 1, 1 and 0; order does not matter."""
    latents = torch.tensor([0.0, 5.0, 2.0]).reshape(3, 1, 1, 1)
    distances: Tensor = group_distances(latents, torch.tensor([7, 3, 7]))
    assert distances.tolist() == [1.0, 0.0, 1.0]


def test_group_means_by_hand() -> None:
    latents = torch.tensor([0.0, 5.0, 2.0]).reshape(3, 1, 1, 1)
    means: Tensor = group_means(latents, torch.tensor([7, 3, 7]))
    assert means.shape == latents.shape and means.flatten().tolist() == [1.0, 5.0, 1.0]


def test_the_anchor_pulls_the_mean_back(faces: Path, tmp_path: Path) -> None:
    """A new adapter has not moved; one that has is pulled back, by gradients of the anchor alone."""
    weights = {"kl_weight": 0.0, "entropy_weight": 0.0, "anchor_weight": 1e4}
    config = _config(faces, tmp_path, "reward-gradient", rewarded=0, **weights)
    policy, batch = _policy(config, psnr=1e-9)

    def told() -> dict[str, Tensor]:
        return _told(policy, batch)

    assert told()["moved"] < 1e-6
    tensors = list(adapter_tensors(policy.transformer, "default").values())
    with torch.no_grad():
        for value in tensors:
            value.add_(0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(4)))
    before = told()
    before["loss"].backward()
    norm = torch.stack([value.grad.norm() for value in tensors if value.grad is not None]).norm()
    with torch.no_grad():
        for value in tensors:
            value -= 0.01 * (value.grad if value.grad is not None else 0) / norm
    assert before["moved"] > 1e-3
    assert told()["moved"] < before["moved"]


def test_a_finished_run_is_not_told_as_one_of_other_rewards(faces: Path, tmp_path: Path) -> None:
    preference.run(_config(faces, tmp_path))
    recipe = (tmp_path / "preference" / "training.json").read_bytes()
    with pytest.raises(InvalidInputError, match="rewards"):
        preference.run(_config(faces, tmp_path, rewards="psnr=2"))
    assert (tmp_path / "preference" / "training.json").read_bytes() == recipe
