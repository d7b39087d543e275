"""Step 2, second half: the flow that adds to the posterior mean what it leaves out.

Pref-Restore trains the LQ encoder and a denoiser that already knows faces together. At compact scale the denoiser
starts from nothing, so the encoder comes first (`prefrestore.training.encoder`) and is then frozen: the latents of many
seeded pairs, and the frozen language model's states, are computed once, and every step costs only the denoiser.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from prefrestore.training.components import check_together, component_folder
from prefrestore.training.flow_objective import FlowLosses, FlowObjective
from prefrestore.training.identity import parameter_hash, run_identity, start_hash
from prefrestore.training.images import grid, to_signed
from prefrestore.training.latents import PairsConfig, latent_pairs
from prefrestore.training.loop import Trainer
from prefrestore.training.pairs import held_out_pairs, load_training_faces, told_batch
from prefrestore.training.processes import new_accelerator
from prefrestore.training.published import (
    TextureObjective,
    ask_for_model,
    begin,
    exports,
    norms_are_one,
    queries_of,
    start_hashes,
)
from prefrestore.training.working import answer_zero, working_pipeline

if TYPE_CHECKING:
    from prefrestore.pipeline.pipeline import PrefRestorePipeline


LEARNT = ("transformer", "connectors")
"""The components that this stage trains."""
SAMPLE_STEPS = 2
"""Steps of the second of the two restorations that the grids show; the first has one."""
CAPTION_SHARE, COPY_SHARE = 0.9, 0.2
"""Of a run from a published model: captioned faces that are told so, and the published run's copy tasks."""


@dataclass(frozen=True, kw_only=True)
class Config(PairsConfig, FlowLosses):
    """``prefrestore train fidelity``.

    Args:
        data: folders of aligned faces (or the layout of the project's data card).
        output_dir: the working folder, which holds the finished earlier components; ``transformer/`` and
            ``connectors/`` are written to it.
        preset: names the architecture.
        degradation: a preset of `prefrestore.degrade`.
        pairs: how many degraded pairs are cached; each is seen ``steps * batch_size / pairs`` times.
        condition_dropout: share of samples whose whole condition is zeroed (classifier-free guidance).
        query_dropout: share of samples whose queries alone are zeroed, so that the model also works without them.
        start_share: share of each batch at t = 1, where every sampler begins and where the LQ latent says least. The
            others' times are uniform in (0,1], as the paper's are.
        rollout_share: share of each batch whose point of the path is where a sampler of ``rollout_steps`` steps comes
            to by itself; such a sampler is then trained as it is used.
        rollout_steps: see there; 1 takes no such samples.
        minimum_time: the flow loss of times below it is that of the clean latent over this time; the velocity's own
            grows without bound where t goes to 0.
        perceptual_weight: weight of LPIPS between the decoded clean estimate and the clean image.
        perceptual_share: share of each batch that is decoded for it, those of the sampler first, then those at t = 1.
        identity_weight: weight of one minus the SFace cosine between the decoded estimate and the clean image, both in
            random views (`prefrestore.training.likeness`).
        features_weight: weight of one minus the cosine of SFace's features at each place.
        identity_share: share of each batch that the two are computed for, among those that are decoded.
        decoded_margin: latents at each side that are not decoded for these losses; recognisers do not look there.
        decoder_weight: weight of the decoder's own loss, L1 on the clean latents of two samples; above zero the
            decoder is trained with the flow, so that it renders restored latents well too. 0 leaves it frozen.
        adversarial_weight: length of the gradient of a discriminator of latents (`prefrestore.training.discriminator`),
            measured by that of the squared error of the same latent; over ``adversarial_warmup`` steps it grows to it.
        compile: translate the denoiser with torch.compile before the first step: some minutes that a long run on a CPU
            wins back many times over.
        gradient_checkpointing: compute the denoiser's activations twice instead of keeping them.
        model: for presets of the published classes: the folder to train on from (see docs/paper-scale.md). The
            denoiser's blocks, the LQ tokens' connector and the autoencoder's encoder are trained together, by the flow
            and the latents' distance; of the fields above only ``gradient_checkpointing`` and ``compile`` count.
            ``pipeline/`` and ``assembled/`` are written, the whole model in both layouts.
        reference: with ``model``, the details of the published run (`prefrestore.training.published`).
        start_from: a working folder whose ``transformer/`` and ``connectors/`` are the first weights.
    """

    steps: int = 780
    batch_size: int = 16
    learning_rate: float = 5e-4
    compile: bool = False
    start_from: Path | None = None
    model: Path | None = None
    reference: bool = False


def load_working_pipeline(config: Config) -> PrefRestorePipeline:
    """The finished components of ``output_dir`` around a denoiser that is new, or that of ``start_from``."""
    first = config.start_from
    if first is not None:
        check_together(first, ("transformer",))
    sources = {name: "new" if first is None else component_folder(first, name) for name in LEARNT}
    pipeline = working_pipeline(config.preset, config.output_dir, sources, trained=LEARNT, seed=config.seed)
    if first is None:
        answer_zero(pipeline.transformer)
    return pipeline


def stands_on(pipeline: PrefRestorePipeline, config: Config) -> dict[str, str]:
    """Hashes of what the run is given: of the autoencoder without its decoder where that is trained on."""
    frozen = ("lq_encoder", "image_tokenizer", "language_model", "input_skip")
    names = [name for name in frozen if getattr(pipeline, name) is not None]
    hashes = {name: parameter_hash(getattr(pipeline, name)) for name in names}
    if config.start_from is not None:
        hashes["start"] = start_hash(config, pipeline.transformer, pipeline.connectors)
    skip = "decoder" if config.decoder_weight > 0 else None
    return hashes | {"autoencoder": parameter_hash(pipeline.autoencoder, skip=skip)}


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a run of this stage begins with, on the device of the run.

    shown: LQ images (B,3,H,W) in [-1,1] -> rows of restorations for the grids, in the same range. parts: what writes
    the result, by name; over: stages whose components it may replace.
    """

    pipeline: PrefRestorePipeline
    stands_on: dict[str, str]
    objective: nn.Module
    make_batch: Callable[[int], Mapping[str, Any]]
    shown: Callable[[Tensor], list[Tensor]]
    parts: Mapping[str, Callable[[Path], object]]
    over: tuple[str, ...] = ()


def from_parts(config: Config, device: torch.device, log: Callable[[str], None]) -> Start:
    """Behind the finished components of the working folder, whose latents and states are cached."""
    ask_for_model(config.preset, config.output_dir)
    pipeline = load_working_pipeline(config).to(device)
    given = stands_on(pipeline, config)
    pairs = latent_pairs(pipeline, config, log)

    def make_batch(step: int) -> dict[str, Tensor | int]:
        rng = np.random.default_rng([config.seed, 1, step])
        # Not in the order of the cache: the first of a batch are those at t = 1.
        return pairs.batch(rng.integers(len(pairs), size=config.batch_size)) | {"step": step}

    def shown(lq: Tensor) -> list[Tensor]:
        mean = pipeline.decode(pipeline.conditions(lq).lq_latents) * 2 - 1
        settings: dict[str, Any] = {"fidelity": 0, "output_type": "latent"}
        steps = (pipeline(lq, num_inference_steps=n, **settings).images for n in (1, SAMPLE_STEPS))
        return [mean, *(pipeline.decode(latents) * 2 - 1 for latents in steps)]

    trained = (*LEARNT, *(("autoencoder",) if config.decoder_weight > 0 else ()))
    return Start(
        pipeline=pipeline,
        stands_on=given,
        objective=FlowObjective.of(pipeline, config, seed=config.seed),
        make_batch=make_batch,
        shown=shown,
        parts={name: getattr(pipeline, name).save_pretrained for name in trained},
        over=("autoencoder",),
    )


def from_model(config: Config, model: Path, device: torch.device) -> Start:
    """On the published classes of ``model``: what `TextureObjective` trains; the whole model is written."""
    pipeline = begin(config.preset, model, seed=config.seed)
    given, shared = start_hashes(pipeline, config.reference), norms_are_one(pipeline)
    pipeline.to(device)
    faces = load_training_faces(config.data, pipeline.face_size)
    copy_share = COPY_SHARE if config.reference else 0.0

    def make_batch(step: int) -> dict[str, Tensor]:
        batch = told_batch(
            faces, config, step, caption_share=CAPTION_SHARE, copy_share=copy_share, captioned_copies=False
        )
        lq, targets, copied = batch["lq"], batch["targets"], torch.tensor(batch["copy"])
        lq[copied] = targets[copied]
        lq, targets = lq.to(device), targets.to(device)
        queries = queries_of(pipeline, lq, targets, batch["captions"], reference=config.reference)
        return {"lq": lq, "targets": targets, "queries": queries.float()}

    def shown(lq: Tensor) -> list[Tensor]:
        conditions = pipeline.conditions(lq)
        noise = torch.randn(conditions.lq_latents.shape, generator=torch.Generator().manual_seed(config.seed))
        return [pipeline.decode(pipeline.sample(conditions, noise), conditions) * 2 - 1]

    return Start(
        pipeline=pipeline,
        stands_on=given,
        objective=TextureObjective(pipeline),
        make_batch=make_batch,
        shown=shown,
        parts=exports(pipeline, model, shares_norm=shared),
    )


def run(config: Config, *, log: Callable[[str], None] = print) -> Trainer:
    """Train the denoiser and the connectors; write ``transformer/`` and ``connectors/`` under ``output_dir``."""
    accelerator = new_accelerator()
    device, model = accelerator.device, config.model
    start = from_parts(config, device, log) if model is None else from_model(config, model, device)
    pipeline = start.pipeline
    faces = load_training_faces(config.data, pipeline.face_size)
    identity = run_identity("fidelity", config, faces, start.stands_on)
    lq, targets, _ = held_out_pairs(config.data, pipeline.face_size, 8, config.degradation, config.seed)
    if config.gradient_checkpointing:
        pipeline.transformer.enable_gradient_checkpointing()
    if config.compile:
        pipeline.transformer.compile()

    @torch.compiler.set_stance("force_eager")
    def sample() -> Image.Image:
        return grid([to_signed(lq), *start.shown(to_signed(lq).to(device)), to_signed(targets)])

    # With a model, batches hold what it says on the device, so no other process can prepare them.
    loop = config.loop("fidelity", **({} if model is None else {"num_workers": 0}))
    trainer = Trainer(
        start.objective, start.make_batch, loop, sample=sample, accelerator=accelerator, identity=identity
    )
    trainer.fit()
    trainer.export(config.output_dir, start.parts, over=start.over)
    return trainer
