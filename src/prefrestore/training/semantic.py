"""Step 1, semantics: the language model learns to write the clean image's tokens from the degraded image's.

Pref-Restore (arXiv 2601.19506) adds a flow loss with the queries as the only condition, through a denoiser
that already knows faces. At compact scale no such denoiser exists when this step runs, so the cross-entropy
stands alone; on the published classes the term is `prefrestore.training.published.QueryFlow`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from prefrestore.models.semantic.instruction import ImageVocabulary
from prefrestore.models.semantic.integrator import tell_codes_alike
from prefrestore.training.components import component_folder
from prefrestore.training.identity import run_identity, start_hash
from prefrestore.training.images import grid, to_signed
from prefrestore.training.loop import Trainer
from prefrestore.training.pairs import Faces, held_out_pairs, load_training_faces, told_batch
from prefrestore.training.published import (
    QueryFlow,
    ask_for_model,
    begin,
    closing_ids,
    exports,
    norms_are_one,
    start_hashes,
)
from prefrestore.training.semantic_objective import (
    SemanticObjective,
    encode_all,
    measure_writing,
    unigram_loss,
)
from prefrestore.training.stage import StageConfig


@dataclass(frozen=True, kw_only=True)
class WritingConfig(StageConfig):
    """Fields of the stages that train the language model; `Config` says what they mean."""

    degradation: str = "training"
    caption_share: float = 0.9
    copy_share: float = 0.2
    validation_faces: int = 96
    gradient_checkpointing: bool = False


@dataclass(frozen=True, kw_only=True)
class Config(WritingConfig):
    """``prefrestore train semantic``.

    Args:
        data: folders of aligned faces (or the layout of the project's data card).
        output_dir: the working folder; ``image_tokenizer/`` is read from it, ``text_tokenizer/`` and
            ``language_model/`` are written to it.
        preset: names the architecture.
        degradation: a preset of `prefrestore.degrade`.
        caption_share: share of captioned faces whose chat carries the caption.
        copy_share: share of copy tasks, whose input is the clean image itself.
        validation_faces: held-out faces that are decoded for every report.
        gradient_checkpointing: compute the language model's activations twice instead of keeping them.
        wrong_weight: how much a token counts where the degraded image has another one; 1 where it has the same.
        start_from: a working folder whose ``text_tokenizer/`` and ``language_model/`` are what training begins with.
        model: for presets of the published classes: the folder to train on from (see docs/paper-scale.md). The flow
            loss through its frozen denoiser is added, and ``pipeline/`` and ``assembled/`` are written, the whole model
            in both layouts.
        reference: with ``model``, the details of the published run (`prefrestore.training.published`).
    """

    wrong_weight: float = 1.0
    start_from: Path | None = None
    model: Path | None = None
    reference: bool = False
    steps: int = 380
    batch_size: int = 32
    learning_rate: float = 1.5e-3
    sample_every: int = 300


def training_batch(
    faces: Faces, config: WritingConfig, step: int, *, captioned_copies: bool = True
) -> dict[str, object]:
    """`told_batch` with the shares of ``config``."""
    shares = {"caption_share": config.caption_share, "copy_share": config.copy_share}
    return told_batch(faces, config, step, **shares, captioned_copies=captioned_copies)


def run(config: Config, *, log: Callable[[str], None] = print) -> Trainer:
    """Train the language model; write ``output_dir/text_tokenizer`` and ``output_dir/language_model``."""
    start = _from_model(config) if config.model is not None else _new_model(config)
    objective, faces, size = start.objective, start.faces, start.size
    image_tokenizer, language_model = objective.image_tokenizer, objective.language_model
    codes = image_tokenizer.config.codebook_size
    if config.gradient_checkpointing:
        # transformers 5.20, the last for Python 3.10, knows only the name that later ones deprecate
        language_model.gradient_checkpointing_enable({"use_reentrant": False})

    lq, clean, captions = held_out_pairs(config.data, size, config.validation_faces, config.degradation, config.seed)
    drawn = faces.images(faces.draw(512, seed=config.seed, step=0))
    given, tokens, seen = (encode_all(image_tokenizer, images) for images in (lq, clean, drawn))
    log(f"validation: the codes' frequencies alone give {unigram_loss(seen, tokens, codes):.3f} nats a token")

    def sample() -> Image.Image:
        language_model.eval()  # in training mode, gradient checkpointing leaves nothing in the cache to decode with
        values, answer = measure_writing(objective, given, tokens, captions)
        language_model.train()
        log("validation " + " ".join(f"{name} {value:.4f}" for name, value in values.items()))
        if not hasattr(image_tokenizer, "decode"):  # TA-Tok's way back to pictures is not part of this package
            return grid([to_signed(lq[:12]), to_signed(clean[:12])])
        said = [image_tokenizer.decode(part.to(image_tokenizer.device)) for part in (given, answer, tokens)]
        cosine = [float((part.identity * said[2].identity).sum(1).mean()) for part in said[:2]]
        log(f"identity cosine with what the clean codes say: given {cosine[0]:.3f}, written {cosine[1]:.3f}")
        return grid([part.low_resolution[:12] for part in said])

    loop = config.loop(
        "semantic",
        weight_decay=0.05,
        betas=(0.9, 0.98),
        ema_decay=0.995,
    )
    identity = run_identity("semantic", config, faces, start.stands_on)
    trainer = Trainer(
        objective,
        lambda step: training_batch(faces, config, step, captioned_copies=not config.reference),
        loop,
        sample=sample,
        identity=identity,
    )
    trainer.fit()
    trainer.export(config.output_dir, start.parts())
    return trainer


@dataclass(frozen=True, kw_only=True)
class _Start:
    """What a run begins with; size: of the faces it sees. parts: what writes its result, by name."""

    objective: SemanticObjective
    faces: Faces
    size: int
    stands_on: dict[str, Any]
    parts: Callable[[], Mapping[str, Callable[[Path], object]]]


def _new_model(config: Config) -> _Start:
    """A new language model, behind the finished image tokenizer of the working folder."""
    from prefrestore.pipeline.components import build_component, build_components
    from prefrestore.pipeline.presets import load_preset

    ask_for_model(config.preset, config.output_dir)
    preset = load_preset(config.preset)
    folder = component_folder(config.output_dir, "image_tokenizer")
    image_tokenizer = build_component(preset, "image_tokenizer", folder)
    size = image_tokenizer.config.image_size
    faces = load_training_faces(config.data, size)
    first = config.start_from
    names = ("text_tokenizer", "language_model")
    sources = {name: "new" if first is None else component_folder(first, name) for name in names}
    parts = build_components(
        preset,
        {"image_tokenizer": image_tokenizer, **sources},
        trained=["language_model"],
        seed=config.seed,
        captions=faces.captions_to_learn_from(),
    )
    text_tokenizer, language_model = parts["text_tokenizer"], parts["language_model"]
    if first is None:
        drawn, vocabulary = torch.Generator().manual_seed(config.seed), ImageVocabulary.of(text_tokenizer)
        tell_codes_alike(language_model, image_tokenizer.regularizer.codebook(), vocabulary, drawn)
    objective = SemanticObjective(
        language_model,
        image_tokenizer,
        text_tokenizer,
        answer_position=preset.answer_position,
        wrong_weight=config.wrong_weight,
    )
    stands_on: dict[str, Any] = {"image_tokenizer": image_tokenizer}
    if first is not None:
        stands_on["start"] = start_hash(config, language_model)
    written = {"text_tokenizer": text_tokenizer.save_pretrained, "language_model": language_model.save_pretrained}
    return _Start(
        objective=objective,
        faces=faces,
        size=size,
        stands_on=stands_on,
        parts=lambda: written,
    )


def _from_model(config: Config) -> _Start:
    """The published classes of ``config.model``, with the flow loss through their denoiser."""
    from prefrestore.pipeline.presets import load_preset

    assert config.model is not None
    size = load_preset(config.preset).face_size
    faces = load_training_faces(config.data, size)
    pipeline = begin(config.preset, config.model, seed=config.seed, captions=faces.captions_to_learn_from())
    stands_on, shared = start_hashes(pipeline, config.reference), norms_are_one(pipeline)
    pipeline.language_model.train().requires_grad_(True)
    objective = SemanticObjective(
        pipeline.language_model,
        pipeline.image_tokenizer,
        pipeline.text_tokenizer,
        answer_position=pipeline.config.answer_position,
        flow_loss=QueryFlow(pipeline, reference=config.reference),
        closing=closing_ids(pipeline.text_tokenizer) if config.reference else (),
    )
    model = config.model
    return _Start(
        objective=objective,
        faces=faces,
        size=size,
        stands_on=stands_on,
        parts=lambda: exports(pipeline, model, shares_norm=shared),
    )
