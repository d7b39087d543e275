"""The chat, to the character and to the id."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from prefrestore.errors import InvalidInputError
from prefrestore.models.semantic.instruction import (
    ImageVocabulary,
    build_chats,
    chat_text,
    image_token,
    train_text_tokenizer,
)

CAPTIONS = ["A man with grey hair looks at the camera.", "A young woman with dark hair smiles."] * 3
CODES = 16


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_text_tokenizer(CAPTIONS, text_vocabulary=400, codebook_size=CODES, max_length=120)


def test_the_chat_is_the_reference_s_to_the_character() -> None:
    start = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\nPlease "
    cut = "<|im_end|>\n<|im_start|>assistant\n<im_start><S0>"
    assert chat_text() == f"{start}reconstruct the given image.{cut}"
    described = f"{start}reconstruct the given image based on the image content: A man.{cut}"
    assert chat_text("A man.") == described
    assert chat_text(copy=True) == f"{start}copy the given image.{cut}"


def test_ids_by_hand(tokenizer: PreTrainedTokenizerFast) -> None:
    words = (
        ["<|im_start|>", "system", "Ċ", "You", "Ġare", "Ġa", "Ġhelpful", "Ġassistant", ".", "<|im_end|>", "Ċ"]
        + ["<|im_start|>", "user", "Ċ", "<I3>", "<I0>", "<I15>", "Ċ"]
        + ["Please", "Ġreconstruct", "Ġthe", "Ġgiven", "Ġimage", ".", "<|im_end|>", "Ċ"]
        + ["<|im_start|>", "assistant", "Ċ", "<im_start>", "<S0>"]
    )
    chats = build_chats(tokenizer, torch.tensor([[3, 0, 15]]))
    assert tokenizer.convert_ids_to_tokens(chats.input_ids[0].tolist()) == words
    assert chats.mask.all() and chats.positions[0].tolist() == list(range(len(words)))


def test_the_vocabulary_lies_as_the_reference_s(tokenizer: PreTrainedTokenizerFast) -> None:
    vocabulary = ImageVocabulary.of(tokenizer)
    named = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<im_start>", "<im_end>"]
    specials = [*named, "<S0>", "<S1>", "<S2>", *(image_token(i) for i in range(CODES))]
    text = len(tokenizer) - len(specials)
    assert tokenizer.convert_tokens_to_ids(specials) == list(range(text, text + len(specials)))
    assert (vocabulary.first, vocabulary.size) == (text + 9, CODES)
    assert (vocabulary.pad, vocabulary.end) == (text, text + 5)


def test_any_text_comes_back_byte_for_byte(tokenizer: PreTrainedTokenizerFast) -> None:
    for text in ("Élodie, 63 — «grey»?", "笑顔の女性", "  two  spaces\ttab"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_batches_are_padded_on_the_left_and_positions_skip_padding(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokens = torch.arange(6).reshape(2, 3)
    both = build_chats(tokenizer, tokens, [CAPTIONS[0], None])
    alone = build_chats(tokenizer, tokens[1:])
    length = alone.input_ids.shape[1]
    assert both.mask[0].all() and both.mask[1].sum() == length
    assert not both.mask[1, :-length].any()
    assert torch.equal(both.input_ids[1, -length:], alone.input_ids[0])
    assert torch.equal(both.positions[1, -length:], torch.arange(length))


def test_an_answer_position_fixes_where_every_answer_starts(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = torch.zeros(2, 3, dtype=torch.long)
    chats = build_chats(tokenizer, tokens, [CAPTIONS[0], None], answer_position=80)
    assert chats.positions[:, -5:].tolist() == [[80, 81, 82, 83, 84]] * 2
    assert chats.positions[0, :-5].tolist() == list(range(chats.positions.shape[1] - 5))
    with pytest.raises(InvalidInputError, match="too long"):
        build_chats(tokenizer, tokens, answer_position=5)


def test_save_and_load(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert loaded.model_max_length == 120
    assert ImageVocabulary.of(loaded) == ImageVocabulary.of(tokenizer)
    tokens = torch.tensor([[1, 2, 3]])
    first, second = (build_chats(t, tokens, CAPTIONS[:1]) for t in (tokenizer, loaded))
    assert torch.equal(first.input_ids, second.input_ids)


def test_training_it_twice_gives_the_same_ids() -> None:
    twice = [train_text_tokenizer(CAPTIONS, text_vocabulary=300, codebook_size=4, max_length=64) for _ in range(2)]
    assert twice[0].get_vocab() == twice[1].get_vocab()


@pytest.mark.parametrize("forged", ["<image>", "<I3>", "a<|im_end|>b", "<S0>", "<im_end>"])
def test_a_caption_cannot_forge_turns_or_images(tokenizer: PreTrainedTokenizerFast, forged: str) -> None:
    with pytest.raises(InvalidInputError, match="reserved"):
        build_chats(tokenizer, torch.zeros(1, 3, dtype=torch.long), [f"A man {forged}."])


def test_what_does_not_fit_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(InvalidInputError, match="120"):
        build_chats(tokenizer, tokens, ["word " * 200])
    with pytest.raises(InvalidInputError, match="codebook"):
        build_chats(tokenizer, tokens + CODES)
    with pytest.raises(InvalidInputError, match="captions"):
        build_chats(tokenizer, tokens, ["a", "b"])
    with pytest.raises(InvalidInputError, match="256"):
        train_text_tokenizer(CAPTIONS, text_vocabulary=100, codebook_size=4, max_length=64)
