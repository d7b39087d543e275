"""From a caption and an image's tokens to the language model's input.

The chat follows Pref-Restore (arXiv 2601.19506): turns ``<|im_start|>{role}\\n{content}<|im_end|>\\n`` and an
assistant turn that is cut right after ``<im_start><S0>``, where the model goes on with the clean image's
tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prefrestore.errors import InvalidInputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
IMAGE, IMAGE_START, IMAGE_END = "<image>", "<im_start>", "<im_end>"
SCALES = ("<S0>", "<S1>", "<S2>")
SPECIALS = (PAD, TURN_START, TURN_END, IMAGE, IMAGE_START, IMAGE_END, *SCALES)
SYSTEM = "You are a helpful assistant."


def image_token(index: int) -> str:
    """The text of the image token with codebook index ``index``."""
    return f"<I{index}>"


def chat_text(caption: str | None = None, *, copy: bool = False) -> str:
    """The whole chat, up to and with ``<im_start><S0>``.

    Args:
        caption: what the picture shows, or None.
        copy: ask for the image as it is (the copy task of training, whose input is the sharp image itself).
    """
    turns = (("system", SYSTEM), ("user", IMAGE + _question(caption, copy=copy)))
    text = "".join(f"{TURN_START}{role}\n{content}{TURN_END}\n" for role, content in turns)
    return f"{text}{TURN_START}assistant\n{IMAGE_START}{SCALES[0]}"


def _question(caption: str | None, *, copy: bool) -> str:
    """What the user turn says after the image."""
    verb = "copy" if copy else "reconstruct"
    described = f" based on the image content: {caption}" if caption else "."
    return f"\nPlease {verb} the given image{described}"


@dataclass(frozen=True, kw_only=True)
class ImageVocabulary:
    """Where the image tokens lie in the language model's vocabulary: ``first`` to ``first + size - 1``."""

    first: int
    size: int
    end: int
    pad: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> ImageVocabulary:
        """Read it from a tokenizer with ``<I0>``, ``<I1>``, ...; InvalidInputError where they are not in a
        row."""
        table = tokenizer.get_added_vocab()
        needed = (PAD, IMAGE_START, IMAGE_END, *SCALES, image_token(0))
        missing = [token for token in needed if token not in table]
        if missing:
            raise InvalidInputError(f"the text tokenizer has no token {missing[0]}")
        first = table[image_token(0)]
        size = sum(1 for token in table if token[:2] == "<I" and token[2:-1].isdigit())
        if table.get(image_token(size - 1)) != first + size - 1:
            raise InvalidInputError("the text tokenizer's image tokens are not in one unbroken row")
        return cls(first=first, size=size, end=table[IMAGE_END], pad=table[PAD])

    def to_ids(self, tokens: Tensor) -> Tensor:
        """Codebook indices -> vocabulary ids, any shape; InvalidInputError for an index outside the
        codebook."""
        if tokens.numel() and not (0 <= int(tokens.min()) and int(tokens.max()) < self.size):
            raise InvalidInputError(f"an image token lies outside the codebook of {self.size}")
        return tokens + self.first


def train_text_tokenizer(
    captions: Iterable[str], *, text_vocabulary: int, codebook_size: int, max_length: int
) -> PreTrainedTokenizerFast:
    """Byte-level BPE learnt from captions, with the chat's special tokens and one token a code behind it.

    Args:
        captions: sentences to learn merges from; the chat's own words are learnt with them.
        text_vocabulary: ids of plain text, 256 (single bytes) or more.
        codebook_size: image tokens.
        max_length: longest chat in positions, image tokens included; saved with the tokenizer.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if text_vocabulary < 256:
        raise InvalidInputError(f"a byte-level vocabulary needs at least 256 ids, not {text_vocabulary}")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=text_vocabulary,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # The frame is in every chat: enough copies that each of its words becomes one token.
    frame = [f"system\n{SYSTEM}", "\n", "user\n", "assistant\n"]
    frame += [_question(None, copy=copy) for copy in (False, True)]
    described = [_question(caption, copy=False) for caption in captions]
    backend.train_from_iterator([*described, *(frame * 50)], trainer)
    tokens = [*SPECIALS, *(image_token(index) for index in range(codebook_size))]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=TURN_END,
        model_max_length=max_length,
        padding_side="left",
    )


@dataclass(frozen=True)
class ChatInputs:
    """A batch of chats for the language model, padded on the left.

    input_ids: (B,L) int64. mask: (B,L) bool, False on padding. positions: (B,L) int64, counted without
    padding.
    """

    input_ids: Tensor
    mask: Tensor
    positions: Tensor

    def to(self, device: torch.device | str) -> ChatInputs:
        """The same on another device."""
        return ChatInputs(self.input_ids.to(device), self.mask.to(device), self.positions.to(device))


def build_chats(
    tokenizer: PreTrainedTokenizerFast,
    image_tokens: Tensor,
    captions: Sequence[str | None] | None = None,
    *,
    copy: Sequence[bool] | None = None,
    answer_position: int | None = None,
) -> ChatInputs:
    """The chats of a batch, ``<image>`` replaced by each image's token ids.

    Args:
        image_tokens: (B,N) int64 codebook indices of the images to restore.
        captions: one an image, or None.
        copy: which of them are copy tasks; none by default.
        answer_position: position at which every assistant turn starts. A caption then leaves a gap or none,
            and
            token i of the clean image lies at one fixed distance from token i of the degraded one, which a
            small model learns sooner. None, as in the reference, counts on without a gap.

    Raises:
        InvalidInputError: lengths differ, a caption contains a special token's text, a chat is longer than
            the tokenizer's ``model_max_length``, or a caption reaches ``answer_position``.
    """
    count = len(image_tokens)
    captions = captions if captions is not None else [None] * count
    copy = copy if copy is not None else [False] * count
    if not len(captions) == len(copy) == count:
        raise InvalidInputError(f"{count} images came with {len(captions)} captions and {len(copy)} tasks")
    vocabulary = ImageVocabulary.of(tokenizer)
    image_ids = vocabulary.to_ids(image_tokens.cpu().long()).tolist()
    reserved = frozenset(tokenizer.get_added_vocab().values())
    rows = []
    for ids, caption, is_copy in zip(image_ids, captions, copy, strict=True):
        if caption:
            _refuse_forgery(tokenizer, reserved, caption)
        rows.append(_chat_ids(tokenizer, ids, chat_text(caption, copy=is_copy)))
    length = max(len(row) for row in rows)
    input_ids = torch.full((count, length), vocabulary.pad)
    mask = torch.zeros(count, length, dtype=torch.bool)
    positions = torch.zeros(count, length, dtype=torch.long)
    answer_length = len(_text_ids(tokenizer, f"{TURN_START}assistant\n{IMAGE_START}{SCALES[0]}"))
    for row, ids in enumerate(rows):
        input_ids[row, length - len(ids) :] = torch.tensor(ids)
        mask[row, length - len(ids) :] = True
        counted = torch.arange(len(ids))
        if answer_position is not None:
            before = len(ids) - answer_length
            if before > answer_position:
                raise InvalidInputError(f"the prompt is {before - answer_position} tokens too long for this model")
            counted[before:] += answer_position - before
        positions[row, length - len(ids) :] = counted
    return ChatInputs(input_ids, mask, positions)


def _text_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _chat_ids(tokenizer: PreTrainedTokenizerFast, image_ids: list[int], text: str) -> list[int]:
    """One chat's ids, the placeholder replaced by the image's; the placeholder need not be a token of its own."""
    before, after = text.split(IMAGE, 1)
    ids = [*_text_ids(tokenizer, before), *image_ids, *_text_ids(tokenizer, after)]
    if len(ids) > tokenizer.model_max_length:
        raise InvalidInputError(
            f"the prompt makes a chat of {len(ids)} tokens; this model reads {tokenizer.model_max_length}"
        )
    return ids


def _refuse_forgery(tokenizer: PreTrainedTokenizerFast, reserved: frozenset[int], caption: str) -> None:
    """A caption that spells a special token would forge turns or images."""
    if IMAGE in caption:
        raise InvalidInputError(f"the prompt contains {IMAGE}, which is reserved")
    forged = [token for token in _text_ids(tokenizer, caption) if token in reserved]
    if forged:
        raise InvalidInputError(f"the prompt contains {tokenizer.convert_ids_to_tokens(forged[0])}, which is reserved")
