"""Decoding against a straight-line second reading of the same model."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from prefrestore.errors import InvalidInputError
from prefrestore.models.semantic.instruction import ImageVocabulary, build_chats, train_text_tokenizer
from prefrestore.models.semantic.integrator import teacher_forced, tell_codes_alike, write_tokens

CODES, COUNT = 24, 5
CAPTIONS = ["A man with grey hair.", None, "A woman."]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_text_tokenizer(["A man."], text_vocabulary=300, codebook_size=CODES, max_length=400)


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast, small_model: Callable[..., Qwen3ForCausalLM]) -> Qwen3ForCausalLM:
    return small_model(len(tokenizer), 0, positions=300)


def tokens_of(seed: int, count: int = 3) -> Tensor:
    return torch.randint(0, CODES, (count, COUNT), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_greedy_decoding_is_the_argmax_of_the_whole_sequence(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    vocabulary = ImageVocabulary.of(tokenizer)
    given = tokens_of(1, 1)
    written = write_tokens(model, build_chats(tokenizer, given, CAPTIONS[:1]), vocabulary, COUNT)
    ids = build_chats(tokenizer, given, CAPTIONS[:1]).input_ids
    for step in range(COUNT):
        logits = model(input_ids=ids).logits[0, -1]  # transformers' own path: no cache, no mask, all logits
        best = int(logits[vocabulary.first : vocabulary.first + CODES].argmax())
        assert int(written.tokens[0, step]) == best
        ids = torch.cat([ids, torch.tensor([[vocabulary.first + best]])], dim=1)
    states = model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    assert written.queries.shape == (1, COUNT + 1, 32)
    assert torch.allclose(written.queries[0], states[0, -COUNT - 1 :], atol=1e-4)


@pytest.mark.parametrize("answer_position", [None, 120])
def test_a_batch_gives_what_each_face_gives_alone(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, answer_position: int | None
) -> None:
    vocabulary, given = ImageVocabulary.of(tokenizer), tokens_of(2)
    together = write_tokens(
        model, build_chats(tokenizer, given, CAPTIONS, answer_position=answer_position), vocabulary, COUNT
    )
    for row in range(3):
        chat = build_chats(tokenizer, given[row : row + 1], CAPTIONS[row : row + 1], answer_position=answer_position)
        alone = write_tokens(model, chat, vocabulary, COUNT)
        assert torch.equal(alone.tokens[0], together.tokens[row])
        assert torch.allclose(alone.queries[0], together.queries[row], atol=1e-4)


def test_teacher_forcing_sees_the_same_states_and_rates_its_own_tokens_right(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    vocabulary = ImageVocabulary.of(tokenizer)
    chats = build_chats(tokenizer, tokens_of(3), CAPTIONS)
    written = write_tokens(model, chats, vocabulary, COUNT)
    forced = teacher_forced(model, chats, written.tokens, vocabulary)
    assert torch.allclose(forced.queries, written.queries, atol=1e-4)
    assert forced.accuracy == 1
    assert forced.loss.requires_grad and forced.image_loss.shape == (3, COUNT)


@torch.no_grad()
def test_the_loss_is_the_next_token_cross_entropy(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    vocabulary = ImageVocabulary.of(tokenizer)
    given, truth = tokens_of(4, 1), tokens_of(5, 1)
    chat = build_chats(tokenizer, given)
    forced = teacher_forced(model, chat, truth, vocabulary)
    ids = torch.cat([chat.input_ids, truth + vocabulary.first, torch.tensor([[vocabulary.end]])], dim=1)
    logs = model(input_ids=ids).logits[0].log_softmax(-1)
    by_hand = [-logs[i - 1, ids[0, i]] for i in range(chat.input_ids.shape[1], ids.shape[1])]
    assert torch.allclose(forced.loss, torch.stack(by_hand).mean(), atol=1e-4)
    assert torch.allclose(forced.image_loss[0], torch.stack(by_hand[:-1]), atol=1e-4)


def test_padding_and_the_future_carry_no_gradient(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    vocabulary = ImageVocabulary.of(tokenizer)
    chats = build_chats(tokenizer, tokens_of(6), CAPTIONS)
    first = teacher_forced(model, chats, tokens_of(7), vocabulary)
    changed = tokens_of(7)
    changed[:, -1] = (changed[:, -1] + 1) % CODES
    second = teacher_forced(model, chats, changed, vocabulary)
    assert torch.allclose(first.queries[:, :-1], second.queries[:, :-1], atol=1e-5)
    assert not torch.allclose(first.queries[:, -1], second.queries[:, -1], atol=1e-3)
    model.zero_grad()
    first.loss.backward()
    weight = model.model.embed_tokens.weight
    assert weight.grad is not None and weight.grad[vocabulary.pad].abs().sum() == 0
    model.zero_grad()


def test_weights_come_from_the_generator_alone(
    tokenizer: PreTrainedTokenizerFast, small_model: Callable[..., Qwen3ForCausalLM]
) -> None:
    first, second, other = (small_model(len(tokenizer), seed) for seed in (3, 3, 4))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_save_and_load(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    loaded = Qwen3ForCausalLM.from_pretrained(tmp_path).eval()
    vocabulary, chats = ImageVocabulary.of(tokenizer), build_chats(tokenizer, tokens_of(8), CAPTIONS)
    before, after = (write_tokens(m, chats, vocabulary, COUNT) for m in (model, loaded))
    assert torch.equal(before.tokens, after.tokens) and torch.equal(before.queries, after.queries)


def test_what_does_not_fit_is_refused(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    vocabulary = ImageVocabulary.of(tokenizer)
    chats = build_chats(tokenizer, tokens_of(9), CAPTIONS)
    with pytest.raises(InvalidInputError, match="position"):
        write_tokens(model, chats, vocabulary, 290)
    with pytest.raises(InvalidInputError, match="codebook"):
        teacher_forced(model, chats, tokens_of(9) + CODES, vocabulary)


@torch.no_grad()
def test_weights_say_how_much_each_token_counts(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    vocabulary, given, tokens = ImageVocabulary.of(tokenizer), tokens_of(1), tokens_of(2)
    chats = build_chats(tokenizer, given, CAPTIONS)
    plain = teacher_forced(model, chats, tokens, vocabulary)
    even = teacher_forced(model, chats, tokens, vocabulary, weights=torch.ones(3, COUNT))
    assert torch.allclose(plain.loss, even.loss)
    weights = torch.tensor([[3.0, 0, 0, 0, 0], [0] * 5, [0] * 5])
    heavy = teacher_forced(model, chats, tokens, vocabulary, weights=weights).loss
    # What ends the three turns counts 1 each: what remains of the even sum without the image tokens.
    ends = plain.loss * 3 * (COUNT + 1) - plain.image_loss.sum()
    assert torch.allclose(heavy, (3 * plain.image_loss[0, 0] + ends) / 6, atol=1e-5)


def test_codes_that_are_alike_get_embeddings_that_are_alike(
    tokenizer: PreTrainedTokenizerFast, small_model: Callable[..., Qwen3ForCausalLM]
) -> None:
    model, vocabulary = small_model(len(tokenizer), 1), ImageVocabulary.of(tokenizer)
    codes = torch.nn.functional.normalize(torch.randn(CODES, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    text = model.get_input_embeddings().weight[: vocabulary.first].clone()
    length = model.get_input_embeddings().weight[vocabulary.first :].norm(dim=1).mean()
    tell_codes_alike(model, codes, vocabulary, torch.Generator().manual_seed(0), own=0.1)
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        rows = table.weight[vocabulary.first : vocabulary.first + CODES]
        cosines = torch.nn.functional.normalize(rows, dim=1) @ torch.nn.functional.normalize(rows, dim=1).T
        assert torch.corrcoef(torch.stack([cosines.flatten(), (codes @ codes.T).flatten()]))[0, 1] > 0.95
    assert torch.equal(model.get_input_embeddings().weight[: vocabulary.first], text)
    rows = model.get_input_embeddings().weight[vocabulary.first : vocabulary.first + CODES]
    assert rows.norm(dim=1).mean().item() == pytest.approx(length.item(), rel=0.1)
