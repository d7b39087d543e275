"""From degraded faces and captions to the dense latent queries: tokenizer, chat and language model in a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prefrestore.models.offload import at_work
from prefrestore.models.semantic.decoding import Written, write_tokens
from prefrestore.models.semantic.instruction import ChatInputs, ImageVocabulary, build_chats
from prefrestore.models.semantic.integrator import teacher_forced

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM


@dataclass(frozen=True, kw_only=True)
class SemanticBranch:
    """The three parts of the branch; ``answer_position``: see `prefrestore.models.semantic.instruction.build_chats`.

    Images are (B,3,S,S) in [-1,1] of the tokenizer's size.
    """

    image_tokenizer: Any
    text_tokenizer: PreTrainedTokenizerFast
    language_model: Qwen3ForCausalLM
    answer_position: int | None = None

    @torch.no_grad()
    def write(self, images: Tensor, captions: Sequence[str | None], **decoding: Any) -> Written:
        """Degraded faces -> the tokens that the language model writes for the clean ones, and its queries (B,N+1,D).

        ``decoding``: ``constrained``, ``sampling`` of `prefrestore.models.semantic.decoding.write_tokens`.
        """
        tokens, chats, vocabulary = self._read(images, captions)
        with at_work(self.language_model):
            return write_tokens(self.language_model, chats, vocabulary, tokens.shape[1], draft=tokens, **decoding)

    @torch.no_grad()
    def told(self, images: Tensor, captions: Sequence[str | None], clean: Tensor) -> Tensor:
        """The queries (B,N+1,D) where the language model is shown the clean faces' own tokens."""
        _, chats, vocabulary = self._read(images, captions)
        with at_work(self.image_tokenizer):
            tokens = self.image_tokenizer.encode(clean)
        with at_work(self.language_model):
            return teacher_forced(self.language_model, chats, tokens, vocabulary).queries

    def _read(self, images: Tensor, captions: Sequence[str | None]) -> tuple[Tensor, ChatInputs, ImageVocabulary]:
        with at_work(self.image_tokenizer):
            tokens = self.image_tokenizer.encode(images)
        chats = build_chats(self.text_tokenizer, tokens, list(captions), answer_position=self.answer_position)
        return tokens, chats, ImageVocabulary.of(self.text_tokenizer)
