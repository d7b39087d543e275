"""Step 3: on-policy preference optimisation of the flow, by a low-rank adapter on the denoiser.

Each step draws some LQ images, restores each ``group_size`` times, rewards the restorations and moves the adapter: one
round of sampling and one update, so the loop of the other stages serves unchanged and a killed run resumes to the same
losses. Pref-Restore (arXiv 2601.19506); the objectives are those of `prefrestore.preference.objectives`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import DistributedType

from prefrestore.data.identity import face_identity
from prefrestore.errors import InvalidInputError
from prefrestore.files.atomic import written_beside
from prefrestore.files.fingerprints import digest, file_hash
from prefrestore.files.weights import folder_hashes
from prefrestore.models.adapter import (
    INPUT,
    TARGETS,
    adapter_tensors,
    add_adapter,
    check_noise_gain,
    save_adapter,
    set_noise_gain,
)
from prefrestore.preference.held_out import HeldOutFaces
from prefrestore.preference.objectives import old_policy_decay, update_average
from prefrestore.preference.policy import OBJECTIVES, PolicySettings
from prefrestore.preference.rewards import asked_options, build_mix, build_reward, parse_mix
from prefrestore.preference.rewards.guard import HeldOutGuard
from prefrestore.training.identity import run_identity
from prefrestore.training.latents import PairsConfig, latent_pairs, pair_captions
from prefrestore.training.loop import Trainer
from prefrestore.training.pairs import load_training_faces, load_validation
from prefrestore.training.processes import new_accelerator
from prefrestore.training.published import start_hashes

if TYPE_CHECKING:
    from prefrestore.pipeline.pipeline import PrefRestorePipeline

POLICY, OLD = "default", "old"


@dataclass(frozen=True, kw_only=True)
class Config(PairsConfig):
    """``prefrestore train preference``.

    Args:
        data: folders of aligned faces (or the layout of the project's data card).
        output_dir: the adapter is written to ``preference/`` in it, and the cached pairs lie there.
        preset: names the architecture.
        model: pipeline folder to align; the preset's own weights (without their adapter) where it is not given.
        degradation: a preset of `prefrestore.degrade`.
        pairs: how many degraded pairs are cached.
        objective: ``nft`` (DiffusionNFT), ``grpo`` (Flow-GRPO) or ``reward-gradient`` (ReFL, DRaFT).
        reference: nft's details as Pref-Restore's run has them: rewards are added as they are, rollouts leave out the
            sampler's last step (its ``sample_steps`` are 30), and the loss's times are those of the steps, shuffled.
        rewards: the mix, as ``name=weight`` with commas between, or ``published``: that of Pref-Restore's run.
        reward_options: a JSON file of options by reward: ``{"landmarks": {"points": 98, "weights": "FILE"}}``.
        scorer: folder of the reward ``preference``, where it is not the bundled scorer.
        held_out: a reward that is watched and not optimised; ``none`` watches nothing.
        held_out_faces: on how many validation faces, always the same.
        held_out_every: after how many steps each.
        held_out_tolerance: how far its smoothed value may fall below its best, in its own unit.
        held_out_patience: after how many such readings in a row the run stops.
        batch_size: LQ images of a micro-batch; the advantages' spread is that of a micro-batch.
        group_size: restorations of each; one is enough for reward-gradient without an entropy weight.
        sample_steps: steps of the sampler, while training.
        solver: ``dpm`` or ``euler``, for nft and reward-gradient; grpo takes the stochastic steps of its own.
        gradient_steps: reward-gradient goes back through so many last steps of the sampler.
        time_exponent: nft's times are t = u ** time_exponent with u uniform; 1 is the paper's. A sampler of one step
            only ever asks for t = 1, so small values teach it sooner.
        noise_level: grpo's eta, how stochastic its steps are.
        beta: nft's guidance strength b.
        advantage_clip: nft's A_max.
        clip_range: grpo's bound on the ratio of probabilities.
        kl_weight: weight of ``mean((v - v_reference)^2)``.
        entropy_weight: weight of the agreement of a group: minus the squared distance of a latent to its group's mean.
        anchor_weight: reward-gradient's weight of staying where the base is: the squared distance of a group's mean to
            the mean of the base's restorations from the same noise. It asks nothing of a single restoration, so it does
            not oppose ``entropy_weight``, as a distance of each to the base's own would.
        rewarded: how many restorations of each group reward-gradient decodes and rewards; 0 for all.
        rank, alpha: of the adapter.
        targets: the layers that it changes: ``attention``, or ``attention+input`` with the patch embedding, where the
            noise enters the denoiser and can be kept out.
        noise_gain: how much of the noise the adapter lets into the denoiser before the first step (``input`` targets).
        noise_gain_after: set it to this again in the adapter that is written; rewards do not mind noise that comes
            back while they are climbed.
        gradient_checkpointing: compute the denoiser's activations twice instead of keeping them.
        tracker: who is told the curves beside ``log.jsonl``: ``none``, or a name that Accelerate knows.
    """

    model: Path | None = None
    objective: str = "nft"
    reference: bool = False
    rewards: str = "identity=1,lpips=1,landmarks=0.5,preference=0.5"
    reward_options: Path | None = None
    scorer: Path | None = None
    held_out: str = "psnr"
    held_out_faces: int = 16
    held_out_every: int = 10
    held_out_tolerance: float = 0.02
    held_out_patience: int = 3
    steps: int = 60
    batch_size: int = 4
    group_size: int = 8
    learning_rate: float = 3e-4
    sample_steps: int = 2
    solver: str = "dpm"
    gradient_steps: int = 1
    time_exponent: float = 1.0
    noise_level: float = 0.7
    beta: float = 0.1
    advantage_clip: float = 5.0
    clip_range: float = 1e-4
    kl_weight: float = 1e-4
    entropy_weight: float = 0.0
    anchor_weight: float = 0.0
    rewarded: int = 0
    rank: int = 32
    alpha: int = 64
    targets: str = "attention"
    noise_gain: float = 1.0
    noise_gain_after: float | None = None
    tracker: str = "tensorboard"
    sample_every: int = 20
    save_every: int = 10

    def policy(self) -> PolicySettings:
        """What the objective needs of this."""
        return PolicySettings(
            group_size=self.group_size,
            sample_steps=self.sample_steps,
            solver=self.solver,
            gradient_steps=self.gradient_steps,
            time_exponent=self.time_exponent,
            noise_level=self.noise_level,
            beta=self.beta,
            advantage_clip=self.advantage_clip,
            clip_range=self.clip_range,
            kl_weight=self.kl_weight,
            entropy_weight=self.entropy_weight,
            anchor_weight=self.anchor_weight,
            rewarded=self.rewarded,
            reference=self.reference,
        )


def load_base(config: Config) -> PrefRestorePipeline:
    """The pipeline to align: without an adapter, frozen, in float32."""
    from prefrestore.pipeline.build import load_preset_pipeline
    from prefrestore.pipeline.presets import load_preset
    from prefrestore.pipeline.published.loading import is_assembled
    from prefrestore.pipeline.published.start import start_pipeline

    if config.model is not None and is_assembled(config.model):
        pipeline = start_pipeline(config.model, load_preset(config.preset))
    else:
        pipeline = load_preset_pipeline(config.preset, folder=config.model, preference=False, face_size="core")
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    return pipeline


def run(config: Config, *, log: Callable[[str], None] = print) -> Trainer:
    """Train the adapter and write ``output_dir/preference``.

    Raises:
        InvalidInputError: an argument is out of range, a reward has no gradients or no caption, the held-out reward is
            optimised.
        WeightsError, MissingDependencyError: what a reward needs is not there.
    """
    if config.objective not in OBJECTIVES:
        raise InvalidInputError(f"the objective is one of {', '.join(OBJECTIVES)}, not '{config.objective}'")
    if (config.anchor_weight or config.rewarded) and config.objective != "reward-gradient":
        raise InvalidInputError("--anchor-weight and --rewarded are for the objective reward-gradient alone")
    if config.reference and (config.objective != "nft" or config.sample_steps < 3):
        raise InvalidInputError("--reference is for the objective nft with three sample steps or more (its run has 30)")
    weights = parse_mix(config.rewards)
    own = asked_options(config.rewards, config.reward_options, config.scorer, {*weights, config.held_out})
    mix = build_mix(weights, {name: options for name, options in own.items() if name in weights}, raw=config.reference)
    guard = None
    if config.held_out != "none":
        watched = build_reward(config.held_out, **own.get(config.held_out, {}))
        guard = HeldOutGuard(watched, mix, tolerance=config.held_out_tolerance, patience=config.held_out_patience)
    loop = config.loop("preference", ema_decay=0.9, weight_decay=1e-4, warmup_steps=0, tracker=config.tracker)
    accelerator = new_accelerator(loop.tracker, loop.output_dir)
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        # Sampling switches adapters, and both keep which parameters learn as it was at first.
        raise InvalidInputError("the preference stage has a small adapter, whole on every device: take multi_gpu.yaml")
    pipeline = load_base(config)
    if {config.noise_gain, config.noise_gain_after} - {1, None} and pipeline.config.start != "lq_latent":
        raise InvalidInputError("a noise gain is for flows from the LQ latents: others have nothing but noise")
    base = start_hashes(pipeline, config.reference)
    if config.scorer is not None:
        base["scorer"] = digest(folder_hashes(config.scorer))
    if config.reward_options is not None:
        base["reward_options"] = file_hash(config.reward_options)
    for name in (OLD, POLICY):
        add_adapter(
            pipeline.transformer,
            name,
            rank=config.rank,
            alpha=config.alpha,
            targets=config.targets,
            noise_gain=config.noise_gain,
            seed=config.seed,
        )
    if config.noise_gain_after is not None:
        if INPUT not in TARGETS[config.targets]:
            raise InvalidInputError("--noise-gain-after is for adapters with the input among their targets")
        check_noise_gain(pipeline.transformer, config.targets, config.noise_gain_after)
    if config.gradient_checkpointing:
        pipeline.transformer.enable_gradient_checkpointing()
    policy, old = adapter_tensors(pipeline.transformer, POLICY), adapter_tensors(pipeline.transformer, OLD)
    objective = OBJECTIVES[config.objective](pipeline, mix, config.policy(), policy=POLICY, old=OLD)

    pipeline.to(accelerator.device)
    pairs = latent_pairs(pipeline, config, log)
    identity = run_identity("preference", config, load_training_faces(config.data, pipeline.face_size), base)
    identity["held_out"] = face_identity(load_validation(config.data, pipeline.face_size))
    captions = pair_captions(config, pipeline.face_size)
    if mix.needs_caption and not any(captions):
        raise InvalidInputError(f"the rewards {config.rewards} need captions, and the training faces have none")

    def make_batch(step: int) -> dict[str, Any]:
        rng = np.random.default_rng([config.seed, 2, step])
        index = np.sort(rng.choice(len(pairs), size=config.batch_size, replace=False))
        batch = pairs.batch(index)
        del batch["clean_latents"]
        return batch | {"captions": [captions[i] for i in index]}

    faces = HeldOutFaces(
        pipeline,
        config.data,
        count=max(8, config.held_out_faces),  # the sheets show eight of them
        degradation=config.degradation,
        seed=config.seed,
    )
    notes: dict[str, Any] = {}

    def after_step(losses: dict[str, float]) -> bool:
        update_average(old.values(), policy.values(), old_policy_decay(trainer.step))
        if guard is None or trainer.step % config.held_out_every:
            return False
        reading = faces.reading(guard)
        stop = guard.update(reading)
        notes["guard"] = guard.state_dict()
        log(f"step {trainer.step}: {guard.reward.name} of the held-out faces {reading:.4f}, best {guard.best:.4f}")
        if stop:
            log(f"stopped: the held-out reward fell from {guard.best:.4f} to {guard.smoothed:.4f} (smoothed)")
        return stop

    if guard is not None:
        guard.update(faces.reading(guard))  # of the adapter as it begins
    trainer = Trainer(
        objective,
        make_batch,
        loop,
        accelerator=accelerator,
        sample=faces.sheet,
        after_step=after_step,
        extra_tensors={f"old.{name}": value for name, value in old.items()},
        notes=notes,
        identity=identity,
    )
    if guard is not None and "guard" in notes:
        guard.load_state_dict(notes["guard"])
    if not (guard is not None and guard.stopped):
        trainer.fit()

    def write(folder: Path) -> None:
        if config.noise_gain_after is not None:
            set_noise_gain(pipeline.transformer, POLICY, config.noise_gain_after)
        save_adapter(pipeline.transformer, POLICY, folder, torch.float16)
        with written_beside(folder / "training.json") as part:
            part.write_text(json.dumps(_recipe(config, trainer.step), indent=2) + "\n")

    trainer.export(config.output_dir, {"preference": write})
    return trainer


def _recipe(config: Config, steps: int) -> dict[str, Any]:
    """How the adapter was made, without the paths of the machine that made it."""
    kept = ["objective", "rewards", "held_out", "batch_size", "learning_rate", "seed", "degradation", "pairs"]
    kept += ["rank", "alpha", "targets", "noise_gain", "noise_gain_after", "preset", "mixed_precision"]
    return {"steps": steps} | {name: getattr(config, name) for name in kept} | vars(config.policy())
