"""Step 1's loss, and how well held-out tokens are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from prefrestore.models.semantic.instruction import ImageVocabulary, build_chats
from prefrestore.models.semantic.integrator import TeacherForced, teacher_forced, write_tokens
from prefrestore.pipeline.inputs import prepare_faces
from prefrestore.training.images import to_signed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# (queries (B,N+1,D), clean images (B,3,H,W) in [-1,1], generator) -> scalar. A module's parameters are
# trained too.
FlowLoss = Callable[[Tensor, Tensor, torch.Generator], Tensor]


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
        closing: Sequence[int] = (),
        wrong_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.closing, self.wrong_weight = closing, wrong_weight
        self.language_model = language_model
        self.image_tokenizer = image_tokenizer.requires_grad_(False)
        self.text_tokenizer = text_tokenizer
        self.vocabulary = ImageVocabulary.of(text_tokenizer)
        self.answer_position = answer_position
        self.flow_loss = flow_loss

    def read(self, lq: Tensor, targets: Tensor, captions: Sequence[str | None], copy: Sequence[bool]) -> TeacherForced:
        """LQ and clean images (B,3,H,W) in [-1,1], captions, copy tasks -> the language model on the clean tokens."""
        copied = torch.tensor(list(copy), device=lq.device)
        # The frozen tokenizer reads in float32, as it does in the pipeline: near ties fall the same way.
        side = self.image_tokenizer.config.image_size
        lq, targets = prepare_faces(lq, side), prepare_faces(targets, side)
        with torch.autocast(lq.device.type, enabled=False):
            tokens = self.image_tokenizer.encode(targets)
            given = tokens.clone()
            # Twice in every process, whatever it drew: a sharded tokenizer is gathered by all of them at once.
            read = self.image_tokenizer.encode(lq[~copied] if not bool(copied.all()) else lq)
            if not bool(copied.all()):
                given[~copied] = read
        return self.on_tokens(given, tokens, captions, copy=copy)

    def on_tokens(
        self,
        given: Tensor,
        tokens: Tensor,
        captions: Sequence[str | None],
        *,
        copy: Sequence[bool] | None = None,
        shown: Tensor | None = None,
    ) -> TeacherForced:
        """Tokens (B,N) of degraded and clean images, captions, copy tasks -> the language model on the clean ones.

        ``shown``: see `teacher_forced`.
        """
        chats = build_chats(self.text_tokenizer, given, captions, copy=copy, answer_position=self.answer_position)
        # Where the degraded image's token is right, taking it over is right, too, and is learnt in no time.
        weights = 1 + (self.wrong_weight - 1) * (given != tokens).float() if self.wrong_weight != 1 else None
        return teacher_forced(self.language_model, chats, tokens, self.vocabulary, self.closing, weights, shown)

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
            total = total + losses["flow"]
        return losses | {"loss": total}


def encode_all(image_tokenizer: Any, images: np.ndarray, batch: int = 16) -> Tensor:
    """Images (M,H,W,3) uint8 -> their tokens (M,N)."""
    side = image_tokenizer.config.image_size
    pieces = (to_signed(images[i : i + batch]).to(image_tokenizer.device) for i in range(0, len(images), batch))
    pieces = (prepare_faces(piece, side) for piece in pieces)
    return torch.cat([image_tokenizer.encode(piece).cpu() for piece in pieces])


def unigram_loss(counted: Tensor, tokens: Tensor, size: int) -> float:
    """Cross-entropy in nats a token of ``tokens`` under the frequencies of ``counted`` (plus one half
    each)."""
    frequency = torch.bincount(counted.flatten(), minlength=size).double() + 0.5
    return float(-(frequency / frequency.sum()).log()[tokens.flatten()].mean())


@torch.no_grad()
def measure_writing(
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
