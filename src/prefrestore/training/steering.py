"""The steering learns to act on what a caption tells: the truth of each face, and as often what is not so.

A severely degraded face leaves open whether there were glasses or a smile, so a caption that is right brings it nearer
to the person; one that is wrong must be followed too, or nobody steers. Everything before it is frozen, and what that
makes of many seeded pairs is computed once. Its reader of captions learns beside it, from sentences made of attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.data.attributes import CLASSES, told_vector
from prefrestore.files.fingerprints import FORMAT, file_hash
from prefrestore.metrics.attributes import AttributeReader, FaceFeatures
from prefrestore.metrics.lpips import LPIPS, random_view
from prefrestore.models.texture.input_skip import let_through
from prefrestore.models.texture.steering import caption_states
from prefrestore.training.attribute_loss import AttributeLoss
from prefrestore.training.components import component_folder
from prefrestore.training.encoder import first_weights
from prefrestore.training.identity import parameter_hash, run_identity, start_hash
from prefrestore.training.images import grid, to_signed
from prefrestore.training.likeness import LikenessLoss
from prefrestore.training.loop import Trainer
from prefrestore.training.pairs import cached_pairs, degraded_batch, held_out_pairs, load_training_faces
from prefrestore.training.processes import main_process_first, new_accelerator
from prefrestore.training.stage import StageConfig
from prefrestore.training.told import classes_of, rows_of, sentence, told_of
from prefrestore.training.working import working_pipeline

SURE = 0.6
"""A true face's attribute that the reader finds less likely is not told."""
SHOWN: tuple[Mapping[str, str], ...] = (
    {}, {"glasses": "glasses"}, {"glasses": "none"}, {"expression": "broad smile"}, {"expression": "serious"},
    {"facial_hair": "beard"}, {"facial_hair": "none"}, {"age": "elderly"},
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config(StageConfig):
    """``prefrestore train steering``.

    Args:
        data: folders of aligned faces (or the layout of the project's data card).
        output_dir: the working folder, which holds a finished core; ``steering/`` is written to it.
        preset: names the architecture.
        reader: what ``tools/attributes.py fit`` wrote: it tells the true faces' attributes, and is asked what a steered
            face shows.
        degradation: a preset of `prefrestore.degrade`.
        pairs: how many degraded pairs are cached with what the core makes of them.
        asked_share: share of samples that are told what is not so.
        attribute_weight: of `prefrestore.training.attribute_loss` on decoded faces.
        latent_weight, perceptual_weight, identity_weight, features_weight: of the latent error, LPIPS and
            `prefrestore.training.likeness` against the true face.
        asked_loss: how much of the first two counts for samples that are told what is not so; they stay the person.
        sentences: for the reader of captions, a step.
        start_from: a working folder whose ``steering/`` gives the first weights.
    """

    reader: Path
    degradation: str = "bench-severe"
    pairs: int = 2048
    steps: int = 1500
    batch_size: int = 6
    learning_rate: float = 5e-4
    asked_share: float = 0.5
    attribute_weight: float = 0.3
    latent_weight: float = 1.0
    perceptual_weight: float = 1.0
    identity_weight: float = 1.0
    features_weight: float = 1.0
    asked_loss: float = 0.5
    sentences: int = 16
    start_from: Path | None = None


class SteeringObjective(nn.Module):
    """Attributes of the decoded face, its nearness to the true one, and what is read out of sentences.

    Args:
        core: decodes: its ``autoencoder`` and ``input_skip``; frozen.
    """

    def __init__(
        self,
        steering: Any,
        config: Config,
        core: Any,
        attributes: AttributeLoss | None,
        perceptual: nn.Module | None,
        likeness: LikenessLoss | None,
    ) -> None:
        super().__init__()
        self.steering, self.config, self.core = steering, config, (core,)  # a tuple hides it from the optimiser
        self.attributes, self.perceptual, self.likeness = attributes, perceptual, likeness

    def forward(
        self,
        latents: Tensor,
        clean_latents: Tensor,
        images: Tensor,
        targets: Tensor,
        told: Tensor,
        asked: Tensor,
        states: Tensor,
        mask: Tensor,
        said: Tensor,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """The posterior mean and the clean latents (B,C,h,w), LQ and clean faces (B,3,S,S) in [-1,1] -> losses.

        Args:
            told: (B,K) as `told_vector`. asked: which of them are not so, (B,) bool.
            states, mask: of sentences, as `caption_states` gives them. said: the class of each attribute (N,A) int64,
                the number of classes where it says nothing.
        """
        config = self.config
        steered = latents + self.steering(latents, told)
        near = torch.where(asked, config.asked_loss, 1.0)
        losses = {"latent": ((steered - clean_latents).square().mean((1, 2, 3)) * near).mean()}
        total = config.latent_weight * losses["latent"]
        scores = self.steering.reader(states, mask)
        losses["reading"] = torch.stack([F.cross_entropy(s, said[:, k]) for k, s in enumerate(scores)]).mean()
        total = total + losses["reading"]
        networks = (self.attributes, self.perceptual, self.likeness)
        if all(each is None for each in networks):
            return losses | {"loss": total}
        made = decoded(self.core[0], steered, images)
        if self.attributes is not None:
            losses["attributes"] = self.attributes(made, rows_of(told))
            total = total + config.attribute_weight * losses["attributes"]
        if self.perceptual is not None:
            losses["lpips"] = (self.perceptual(*random_view(made, targets, generator)).flatten() * near).mean()
            total = total + config.perceptual_weight * losses["lpips"]
        if self.likeness is not None:
            kinds = self.likeness(made, targets, generator)
            total = total + config.identity_weight * kinds["identity"] + config.features_weight * kinds["features"]
            losses |= kinds
        return losses | {"loss": total}


def decoded(core: Any, latents: Tensor, images: Tensor) -> Tensor:
    """Scaled latents (B,C,h,w) and the LQ faces (B,3,S,S) in [-1,1] -> pictures of the core; differentiable."""
    made = core.autoencoder.decode(latents / core.autoencoder.config.scaling_factor).sample.float()
    return made if core.input_skip is None else let_through(core.input_skip, made, images)


def run(config: Config, *, log: Callable[[str], None] = print) -> Trainer:
    """Train the steering behind the finished core; write ``steering/`` to the folder."""
    from prefrestore.pipeline.components import build_component
    from prefrestore.pipeline.presets import load_preset

    accelerator = new_accelerator()
    pipeline = working_pipeline(config.preset, config.output_dir, {})
    pipeline.to(accelerator.device)
    steering = build_component(load_preset(config.preset), "steering", trained=("steering",), seed=config.seed)
    if config.start_from is not None:
        first_weights(steering, component_folder(config.start_from, "steering"))
    reader = AttributeReader.load(config.reader)
    network = FaceFeatures().requires_grad_(False)
    faces = load_training_faces(config.data, pipeline.face_size)

    def prepare(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([config.seed, first])
        drawn = faces.images(faces.draw(last - first, seed=config.seed, step=first))
        return degraded_batch(drawn, config.degradation, rng)

    @torch.no_grad()
    def compute(pair: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
        lq, targets = (to_signed(part).to(accelerator.device) for part in pair)
        clean = pipeline.autoencoder.encode(targets).latent.float() * pipeline.autoencoder.config.scaling_factor
        arrays = {"latents": pipeline.encode_texture(lq), "clean_latents": clean}
        truth = reader.read(network(targets), least=SURE)
        made = {name: value.float().cpu().numpy() for name, value in arrays.items()}
        return made | {"lq": pair[0], "targets": pair[1], "truth": np.stack([told_vector(row) for row in truth])}

    names = ("autoencoder", "lq_encoder", "input_skip", "language_model")
    core = {name: parameter_hash(getattr(pipeline, name)) for name in names if getattr(pipeline, name) is not None}
    stands_on = core | {"reader": file_hash(config.reader)}
    cached = {name: stands_on[name] for name in ("autoencoder", "lq_encoder", "reader") if name in stands_on}
    if config.start_from is not None:
        stands_on["start"] = start_hash(config, steering)
    identity = run_identity("steering", config, faces, stands_on)
    key = {"format": FORMAT, "seed": config.seed, "degradation": config.degradation, "data": identity["data"]}
    with main_process_first():
        cache = Path(config.output_dir) / "runs" / "steering_pairs"
        workers = config.num_workers
        pairs = cached_pairs(cache, config.pairs, prepare, compute, key=key | cached, workers=workers, log=log)

    def make_batch(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([config.seed, 1, step])
        index = rng.integers(config.pairs, size=config.batch_size)
        asked = rng.random(config.batch_size) < config.asked_share
        told = [
            told_vector(told_of(classes_of(pairs["truth"][k]), rng, bool(a))) for k, a in zip(index, asked, strict=True)
        ]
        texts, said = zip(*(sentence(rng) for _ in range(config.sentences)), strict=True)
        states, mask = caption_states(pipeline.language_model, pipeline.text_tokenizer, texts)
        return {
            "latents": torch.from_numpy(pairs["latents"][index].astype(np.float32)),
            "clean_latents": torch.from_numpy(pairs["clean_latents"][index].astype(np.float32)),
            "images": to_signed(pairs["lq"][index]),
            "targets": to_signed(pairs["targets"][index]),
            "told": torch.from_numpy(np.stack(told)),
            "asked": torch.from_numpy(asked),
            "states": states,
            "mask": mask,
            "said": torch.tensor(said),
        }

    objective = SteeringObjective(
        steering,
        config,
        pipeline,
        AttributeLoss(reader) if config.attribute_weight > 0 else None,
        LPIPS("alex").requires_grad_(False) if config.perceptual_weight > 0 else None,
        LikenessLoss(network.sface) if config.identity_weight > 0 or config.features_weight > 0 else None,
    )
    held_out = held_out_pairs(config.data, pipeline.face_size, 8, config.degradation, config.seed)[:2]
    lq, clean = (to_signed(part).to(accelerator.device) for part in held_out)
    mean = pipeline.encode_texture(lq)

    @torch.no_grad()
    def sample() -> Image.Image:
        shown = [lq]
        for told in SHOWN:
            asked = torch.from_numpy(told_vector(told)).expand(len(lq), -1).to(lq.device)
            made = decoded(pipeline, mean + steering(mean, asked), lq)
            shown.append(made)
            chances = reader.probabilities(network(made.clamp(-1, 1)))
            for name, wanted in told.items():
                place = CLASSES[name].index(wanted)
                plain = reader.probabilities(network(shown[1].clamp(-1, 1)))[name][:, place].mean()
                log(f"validation {name} {wanted}: {chances[name][:, place].mean():.3f}, not told {plain:.3f}")
        log(f"validation sentences read right {read_right(steering, pipeline):.3f}")
        return grid([*shown, clean])

    # A batch asks the language model, so no other process can prepare it.
    trainer = Trainer(
        objective,
        make_batch,
        config.loop("steering", num_workers=0),
        sample=sample,
        accelerator=accelerator,
        identity=identity,
    )
    trainer.fit()
    trainer.export(config.output_dir, {"steering": steering.save_pretrained})
    return trainer


@torch.no_grad()
def read_right(steering: Any, pipeline: Any, count: int = 200) -> float:
    """Share of new sentences of which every attribute is read right."""
    rng = np.random.default_rng(10**6)
    texts, said = zip(*(sentence(rng) for _ in range(count)), strict=True)
    scores = steering.reader(*caption_states(pipeline.language_model, pipeline.text_tokenizer, texts))
    found = torch.stack([each.argmax(1) for each in scores], dim=1)
    return float((found.cpu() == torch.tensor(said)).all(1).float().mean())
