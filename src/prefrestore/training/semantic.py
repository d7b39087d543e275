"""Step 1, semantics: the language model learns to write the clean image's tokens from the degraded image's.

Pref-Restore (arXiv 2601.19506) adds a flow loss with the queries as the only condition, through a denoiser
that already knows faces. At compact scale no such denoiser exists when this step runs, so the cross-entropy
stands alone by default; `run` takes the flow term as a function for the scales that have one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from prefrestore.models.semantic.instruction import ImageVocabulary, build_chats
from prefrestore.models.semantic.integrator import TeacherForced, teacher_forced, write_tokens
from prefrestore.training.components import component_folder
from prefrestore.training.identity import run_identity
from prefrestore.training.images import grid, to_signed
from prefrestore.training.loop import Trainer
from prefrestore.training.pairs import Faces, degraded_batch, load_training_faces, load_validation
from prefrestore.training.stage import StageConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# (queries (B,N+1,D), clean images (B,3,H,W) in [-1,1], generator) -> scalar. A module's parameters are
# trained too.
FlowLoss = Callable[[Tensor, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, kw_only=True)
class Config(StageConfig):
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
    """

    degradation: str = "training"
    caption_share: float = 0.9
    copy_share: float = 0.2
    validation_faces: int = 96
    gradient_checkpointing: bool = False
    steps: int = 380
    batch_size: int = 32
    learning_rate: float = 1.5e-3
    sample_every: int = 300


class SemanticObjective(nn.Module):
    """Next-token cross-entropy on the clean tokens, plus the flow term where there is one."""

    def __init__(
        self,
        language_model: PreTrainedModel,
        image_tokenizer: Any,
        text_tokenizer: PreTrainedTokenizerBase,
        *,
        answer_position: int | None,
        flow_loss: FlowLoss | None = None,
        flow_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.language_model = language_model
        self.image_tokenizer = image_tokenizer.requires_grad_(False)
        self.text_tokenizer = text_tokenizer
        self.vocabulary = ImageVocabulary.of(text_tokenizer)
        self.answer_position = answer_position
        self.flow_loss = flow_loss
        self.flow_weight = flow_weight

    def read(self, lq: Tensor, targets: Tensor, captions: Sequence[str | None], copy: Sequence[bool]) -> TeacherForced:
        """LQ and clean images (B,3,H,W) in [-1,1], captions, copy tasks -> the language model on the clean tokens."""
        copied = torch.tensor(list(copy), device=lq.device)
        # The frozen tokenizer reads in float32, as it does in the pipeline: near ties fall the same way.
        with torch.autocast(lq.device.type, enabled=False):
            tokens = self.image_tokenizer.encode(targets)
            given = tokens.clone()
            if not bool(copied.all()):
                given[~copied] = self.image_tokenizer.encode(lq[~copied])
        chats = build_chats(self.text_tokenizer, given, captions, copy=copy, answer_position=self.answer_position)
        return teacher_forced(self.language_model, chats, tokens, self.vocabulary)

    def forward(
        self,
        lq: Tensor,
        targets: Tensor,
        captions: Sequence[str | None],
        copy: Sequence[bool],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """As `read` -> losses."""
        result = self.read(lq, targets, captions, copy)
        losses = {"cross_entropy": result.loss, "accuracy": result.accuracy}
        total = result.loss
        if self.flow_loss is not None:
            losses["flow"] = self.flow_loss(result.queries, targets, generator)
            total = total + self.flow_weight * losses["flow"]
        return losses | {"loss": total}


def training_batch(faces: Faces, config: Config, step: int) -> dict[str, object]:
    """The batch of one step: degraded pairs, captions kept in ``caption_share``, ``copy_share`` copy
    tasks."""
    rng = np.random.default_rng([config.seed, step])
    pairs = faces.draw(config.batch_size, seed=config.seed, step=step)
    keep = rng.random(len(pairs)) < config.caption_share
    copy = rng.random(len(pairs)) < config.copy_share
    lq, targets = degraded_batch(faces.images(pairs), config.degradation, rng)
    kept = zip(faces.captions(pairs), keep, strict=True)
    return {
        "lq": to_signed(lq),
        "targets": to_signed(targets),
        "captions": [caption if shown else None for caption, shown in kept],
        "copy": copy.tolist(),
    }


def encode_all(image_tokenizer: Any, images: np.ndarray, batch: int = 16) -> Tensor:
    """Images (M,H,W,3) uint8 -> their tokens (M,N)."""
    pieces = (to_signed(images[i : i + batch]).to(image_tokenizer.device) for i in range(0, len(images), batch))
    return torch.cat([image_tokenizer.encode(piece).cpu() for piece in pieces])


def unigram_loss(counted: Tensor, tokens: Tensor, size: int) -> float:
    """Cross-entropy in nats a token of ``tokens`` under the frequencies of ``counted`` (plus one half
    each)."""
    frequency = torch.bincount(counted.flatten(), minlength=size).double() + 0.5
    return float(-(frequency / frequency.sum()).log()[tokens.flatten()].mean())


@torch.no_grad()
def measure(
    objective: SemanticObjective,
    given: Tensor,
    tokens: Tensor,
    captions: Sequence[str | None],
    batch: int = 16,
) -> tuple[dict[str, float], Tensor]:
    """How well held-out clean tokens (B,N) are written from the degraded images' tokens ``given`` (B,N).

    Returns:
        values and the written tokens (B,N). ``cross_entropy`` (nats, image tokens, true ones as context),
        ``accuracy`` (the same), ``written`` (share of right tokens when decoding freely), ``copied`` (share
        of right tokens when the given ones are taken over as they are).
    """
    model, vocabulary = objective.language_model, objective.vocabulary
    losses, accuracies, written = [], [], []
    for start in range(0, len(tokens), batch):
        part = slice(start, start + batch)
        chats = build_chats(
            objective.text_tokenizer, given[part], captions[part], answer_position=objective.answer_position
        )
        result = teacher_forced(model, chats, tokens[part], vocabulary)
        losses.append(result.image_loss)
        accuracies.append(result.accuracy.repeat(len(tokens[part])))
        written.append(write_tokens(model, chats, vocabulary, tokens.shape[1]).tokens.cpu())
    answer = torch.cat(written)
    values = {
        "cross_entropy": torch.cat(losses).mean().item(),
        "accuracy": torch.cat(accuracies).mean().item(),
        "written": (answer == tokens).float().mean().item(),
        "copied": (given == tokens).float().mean().item(),
    }
    return values, answer


def run(
    config: Config, *, flow_loss: FlowLoss | None = None, flow_weight: float = 1.0, log: Callable[[str], None] = print
) -> Trainer:
    """Train the language model; write ``output_dir/text_tokenizer`` and ``output_dir/language_model``.

    Args:
        flow_loss, flow_weight: the flow term of scales that have a denoiser, and its weight.
    """
    from prefrestore.pipeline.components import build_component, build_components
    from prefrestore.pipeline.presets import load_preset

    preset = load_preset(config.preset)
    folder = component_folder(config.output_dir, "image_tokenizer")
    image_tokenizer = build_component(preset, "image_tokenizer", folder)
    size, codes = image_tokenizer.config.image_size, image_tokenizer.config.codebook_size
    faces = load_training_faces(config.data, size)
    parts = build_components(
        preset,
        {"image_tokenizer": image_tokenizer, "text_tokenizer": "new", "language_model": "new"},
        trained=["language_model"],
        seed=config.seed,
        captions=faces.captions_to_learn_from(),
    )
    text_tokenizer, language_model = parts["text_tokenizer"], parts["language_model"]
    if config.gradient_checkpointing:
        # transformers 5.20, the last for Python 3.10, knows only the name that later ones deprecate
        language_model.gradient_checkpointing_enable({"use_reentrant": False})
    objective = SemanticObjective(
        language_model,
        image_tokenizer,
        text_tokenizer,
        answer_position=preset.answer_position,
        flow_loss=flow_loss,
        flow_weight=flow_weight,
    )

    validation = load_validation(config.data, size)
    stride = max(1, len(validation) // config.validation_faces)
    validation = validation.subset(range(0, len(validation), stride))
    rng = np.random.default_rng(config.seed)
    lq, clean = degraded_batch(validation.images, config.degradation, rng, mirror=False)
    drawn = faces.images(faces.draw(512, seed=config.seed, step=0))
    given, tokens, seen = (encode_all(image_tokenizer, images) for images in (lq, clean, drawn))
    log(f"validation: the codes' frequencies alone give {unigram_loss(seen, tokens, codes):.3f} nats a token")

    def sample() -> Image.Image:
        language_model.eval()  # in training mode, gradient checkpointing leaves nothing in the cache to decode with
        values, answer = measure(objective, given, tokens, validation.captions)
        language_model.train()
        log("validation " + " ".join(f"{name} {value:.4f}" for name, value in values.items()))
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
    identity = run_identity("semantic", config, faces, {"image_tokenizer": image_tokenizer})
    trainer = Trainer(
        objective, lambda step: training_batch(faces, config, step), loop, sample=sample, identity=identity
    )
    trainer.fit()
    parts = {"text_tokenizer": text_tokenizer.save_pretrained, "language_model": language_model.save_pretrained}
    trainer.export(config.output_dir, parts)
    return trainer
