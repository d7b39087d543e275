"""Steps 1 and 2 in one: what the paper's two supervised steps are compared with.

Pref-Restore (arXiv 2601.19506) trains the language model first and the denoiser after it. Here both start from random
weights and are trained together, by the next-token cross-entropy plus all losses of the fidelity stage, whose gradient
reaches the language model through its queries. The tokenizer, the autoencoder and the LQ encoder are finished before
and the same as in the two stages, so that nothing but the order is compared.

The queries are those under the true clean tokens, as in the paper's step 1: a token that the model writes itself passes
no gradient on. So the denoiser learns from queries that know more than those that it is given later, which the two
stages at compact scale avoid.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn

from prefrestore.errors import InvalidInputError
from prefrestore.models.texture.lq_encoder import lq_latents
from prefrestore.training import fidelity, semantic
from prefrestore.training.components import component_folder
from prefrestore.training.flow_objective import FlowLosses, FlowObjective
from prefrestore.training.identity import parameter_hash, run_identity
from prefrestore.training.images import grid, to_signed
from prefrestore.training.loop import Trainer
from prefrestore.training.pairs import Faces, held_out_pairs, load_training_faces
from prefrestore.training.processes import main_process_first, new_accelerator
from prefrestore.training.working import answer_zero

if TYPE_CHECKING:
    from prefrestore.pipeline.pipeline import PrefRestorePipeline

FINISHED = ("autoencoder", "lq_encoder", "image_tokenizer")
"""The components that are trained before, in the two stages as in the one."""
_WRITTEN = ("language_model", "transformer", "connectors")
_TWO = fidelity.Config


@dataclass(frozen=True, kw_only=True)
class Config(semantic.WritingConfig, FlowLosses):
    """``prefrestore train one-stage``.

    Args:
        data: folders of aligned faces (or the layout of the project's data card).
        output_dir: a working folder of its own; ``text_tokenizer/``, ``language_model/``, ``transformer/`` and
            ``connectors/`` are written to it, and ``autoencoder/`` where its decoder is trained.
        components: a working folder whose ``autoencoder/``, ``lq_encoder/`` and ``image_tokenizer/`` are copied to
            ``output_dir`` where it lacks them.
        preset: names the architecture.
        degradation: a preset of `prefrestore.degrade`.
        caption_share: share of captioned faces whose chat carries the caption.
        copy_share: share of chats that are copy tasks, which show the clean image itself; the denoiser's LQ latents are
            always those of the degraded one.
        validation_faces: held-out faces that are decoded for every report.
        cross_entropy_weight: weight of the language model's own loss beside the losses of the fidelity stage.
        condition_dropout, query_dropout, start_share, minimum_time: as in the fidelity stage.
        rollout_share, rollout_steps: as in the fidelity stage.
        perceptual_weight, perceptual_share, identity_weight, identity_share: as in the fidelity stage.
        decoder_weight, adversarial_weight, adversarial_warmup: as in the fidelity stage.
        gradient_checkpointing: compute activations twice instead of keeping them.
    """

    components: Path | None = None
    steps: int = _TWO.steps
    batch_size: int = _TWO.batch_size
    learning_rate: float = _TWO.learning_rate
    validation_faces: int = 32
    sample_every: int = 300
    cross_entropy_weight: float = 1.0


class OneStageObjective(nn.Module):
    """Cross-entropy of the clean tokens plus the flow's losses under the queries of the same pass."""

    def __init__(
        self,
        semantics: semantic.SemanticObjective,
        flow: FlowObjective,
        lq_encoder: Any,
        autoencoder: Any,
        *,
        cross_entropy_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.semantics, self.flow = semantics, flow
        self.lq_encoder, self.autoencoder = lq_encoder.requires_grad_(False), autoencoder
        self.cross_entropy_weight = cross_entropy_weight

    def forward(
        self,
        lq: Tensor,
        targets: Tensor,
        captions: Sequence[str | None],
        copy: Sequence[bool],
        generator: torch.Generator,
        step: int = 0,
    ) -> dict[str, Tensor]:
        """LQ and clean images (B,3,H,W) in [-1,1], captions, copy tasks -> losses."""
        read = self.semantics.read(lq, targets, captions, copy)
        with torch.no_grad():
            estimates = lq_latents(self.autoencoder, self.lq_encoder, lq, read.queries)
            clean_latents = lq_latents(self.autoencoder, None, targets)
        losses = self.flow(estimates, clean_latents, read.queries, targets, generator, step)
        total = losses["loss"] + self.cross_entropy_weight * read.loss
        return {"cross_entropy": read.loss, "accuracy": read.accuracy} | losses | {"loss": total}


def new_pipeline(config: Config, captions: Sequence[str]) -> PrefRestorePipeline:
    """The finished components around a language model, connectors and a denoiser of random weights.

    Raises:
        WeightsError: a finished component is missing.
        InvalidInputError: the tokenizer reads faces of another size than the denoiser restores.
    """
    from prefrestore.pipeline.build import build_pipeline
    from prefrestore.pipeline.components import build_components
    from prefrestore.pipeline.presets import load_preset

    preset = load_preset(config.preset)
    finished = {name: component_folder(config.output_dir, name) for name in FINISHED}
    # Drawn as a whole: the denoiser's first weights are those of a new pipeline with this seed.
    pipeline = build_pipeline(preset, trained=_WRITTEN, seed=config.seed, captions=captions)
    pipeline.register_modules(**build_components(preset, finished))
    if (side := pipeline.image_tokenizer.config.image_size) != pipeline.face_size:
        raise InvalidInputError(
            f"one stage needs one size: tokens are read at {side} px, faces have {pipeline.face_size}"
        )
    answer_zero(pipeline.transformer)  # as in the fidelity stage
    return pipeline


def take_over(config: Config) -> None:
    """Copy the finished components that ``output_dir`` lacks from ``config.components``.

    Raises:
        InvalidInputError: ``output_dir`` holds parts that another stage trained, which this one would write over.
        WeightsError: a component is in neither folder.
    """
    trained = [name for name in _WRITTEN if (config.output_dir / name).exists()]
    if trained and not (config.output_dir / "runs" / "one_stage").is_dir():
        raise InvalidInputError(
            f"{config.output_dir / trained[0]} is of another stage and would be written over: "
            f"give another --output-dir, and this one as --components"
        )
    with main_process_first():
        for name in FINISHED:
            if config.components is not None and not (config.output_dir / name).is_dir():
                config.output_dir.mkdir(parents=True, exist_ok=True)
                beside = config.output_dir / f"{name}.part"
                shutil.rmtree(beside, ignore_errors=True)
                shutil.copytree(component_folder(config.components, name), beside)
                beside.replace(config.output_dir / name)


def batch_of(faces: Faces, config: Config, step: int) -> dict[str, object]:
    """The batch of one step, drawn as in step 1 of the two."""
    return semantic.training_batch(faces, config, step) | {"step": step}


def run(config: Config, *, log: Callable[[str], None] = print) -> Trainer:
    """Train the language model, the connectors and the denoiser together; write them under ``output_dir``."""
    from prefrestore.pipeline.presets import load_preset

    preset = load_preset(config.preset)
    if "lq_encoder" not in preset.components:
        raise InvalidInputError(
            f"one stage is for presets with an LQ encoder of their own, which '{config.preset}' does not have: "
            f"its two steps are `train semantic` and `train fidelity`"
        )
    take_over(config)
    size = preset.face_size
    faces = load_training_faces(config.data, size)
    pipeline = new_pipeline(config, faces.captions_to_learn_from())
    stands_on = {name: parameter_hash(getattr(pipeline, name)) for name in FINISHED}
    if config.decoder_weight > 0:  # trained on
        stands_on["autoencoder"] = parameter_hash(pipeline.autoencoder, skip="decoder")
    identity = run_identity("one_stage", config, faces, stands_on)
    accelerator = new_accelerator()
    pipeline.to(accelerator.device)
    language_model, image_tokenizer = pipeline.language_model, pipeline.image_tokenizer
    if config.gradient_checkpointing:
        pipeline.transformer.enable_gradient_checkpointing()
        language_model.gradient_checkpointing_enable({"use_reentrant": False})
    semantics = semantic.SemanticObjective(
        language_model, image_tokenizer, pipeline.text_tokenizer, answer_position=pipeline.config.answer_position
    )
    objective = OneStageObjective(
        semantics,
        FlowObjective.of(pipeline, config, seed=config.seed),
        pipeline.lq_encoder,
        pipeline.autoencoder,
        cross_entropy_weight=config.cross_entropy_weight,
    )
    lq, clean, captions = held_out_pairs(config.data, size, config.validation_faces, config.degradation, config.seed)
    given, tokens = (semantic.encode_all(image_tokenizer, images) for images in (lq, clean))

    def sample() -> Image.Image:
        language_model.eval()
        values, _ = semantic.measure_writing(semantics, given, tokens, captions)
        log("validation " + " ".join(f"{name} {value:.4f}" for name, value in values.items()))
        first = to_signed(lq[:8]).to(pipeline.device)
        mean = pipeline.decode(pipeline.encode_texture(first))
        latents = pipeline(list(lq[:8]), num_inference_steps=1, fidelity=0, output_type="latent").images
        language_model.train()
        return grid([first, mean * 2 - 1, pipeline.decode(latents) * 2 - 1, to_signed(clean[:8])])

    loop = config.loop("one_stage")
    trainer = Trainer(
        objective,
        lambda step: batch_of(faces, config, step),
        loop,
        sample=sample,
        accelerator=accelerator,
        identity=identity,
    )
    trainer.fit()
    trained = ("text_tokenizer", *_WRITTEN, *(("autoencoder",) if config.decoder_weight > 0 else ()))
    parts = {name: getattr(pipeline, name).save_pretrained for name in trained}
    trainer.export(config.output_dir, parts, over=("autoencoder", "fidelity"))
    return trainer
