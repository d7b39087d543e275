"""Drafted decoding against decoding one token a pass, and against transformers' own model without a cache."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import Qwen3ForCausalLM

from prefrestore.errors import InvalidInputError
from prefrestore.models.semantic import decoding
from prefrestore.models.semantic.decoding import Written, write_tokens
from prefrestore.models.semantic.instruction import ChatInputs, ImageVocabulary

TEXT, CODES, COUNT = 20, 24, 20
VOCABULARY = ImageVocabulary(first=TEXT, size=CODES, end=1, pad=2)


MODELS: list[Qwen3ForCausalLM] = []
"""Of the seeds 0, 1 and 2."""


@pytest.fixture(scope="module", autouse=True)
def models(small_model: Callable[..., Qwen3ForCausalLM]) -> None:
    MODELS[:] = [small_model(TEXT + CODES, seed) for seed in range(3)]


def chats(lengths: list[int], seed: int) -> ChatInputs:
    """Random prompts of these lengths, padded on the left."""
    longest = max(lengths)
    ids = torch.randint(3, TEXT + CODES, (len(lengths), longest), generator=torch.Generator().manual_seed(seed))
    places = torch.arange(longest) - (longest - torch.tensor(lengths))[:, None]
    return ChatInputs(ids.where(places >= 0, VOCABULARY.pad), places >= 0, places.clamp(min=0))


def random_tokens(rows: int, seed: int) -> Tensor:
    return torch.randint(0, CODES, (rows, COUNT), generator=torch.Generator().manual_seed(seed))


def plain(model: Qwen3ForCausalLM, chat: ChatInputs) -> Written:
    return write_tokens(model, chat, VOCABULARY, COUNT)


def same(one: Written, other: Written) -> None:
    assert torch.equal(one.tokens, other.tokens)
    assert torch.allclose(one.queries, other.queries, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    which=st.integers(0, 2),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    seed=st.integers(0, 10_000),
    wrong=st.lists(st.integers(0, COUNT - 1), max_size=COUNT),
    widths=st.sampled_from([(64, 256, 32), (3, 5, 1), (1, 1, 1), (7, 20, 4)]),
)
def test_a_draft_changes_nothing_but_the_passes(
    which: int, lengths: list[int], seed: int, wrong: list[int], widths: tuple[int, int, int]
) -> None:
    model, chat = MODELS[which], chats(lengths, seed)
    greedy = plain(model, chat)
    draft = greedy.tokens.clone()
    for order, place in enumerate(wrong):  # each wrong place in one row, so that the rows advance differently
        draft[order % len(draft), place] = (draft[order % len(draft), place] + 1) % CODES
    with pytest.MonkeyPatch.context() as patch:
        for name, width in zip(("FIRST_DRAFT", "LONGEST_DRAFT", "SHORTEST_DRAFT"), widths, strict=True):
            patch.setattr(decoding, name, width)
        drafted = write_tokens(model, chat, VOCABULARY, COUNT, draft=draft)
        unrelated = write_tokens(model, chat, VOCABULARY, COUNT, draft=random_tokens(len(draft), seed))
    same(drafted, greedy)
    same(unrelated, greedy)


@torch.no_grad()
@pytest.mark.parametrize("seed", range(3))
def test_drafted_tokens_are_the_argmax_of_the_whole_sequence(seed: int) -> None:
    model, chat = MODELS[seed], chats([6], seed)
    drafted = write_tokens(model, chat, VOCABULARY, COUNT, draft=random_tokens(1, seed))
    ids = torch.cat([chat.input_ids, drafted.tokens + TEXT], dim=1)
    logits = model(input_ids=ids, use_cache=False).logits[0, 5:-1, TEXT:]
    assert torch.equal(logits.argmax(-1), drafted.tokens[0])


def test_each_row_is_what_it_is_alone() -> None:
    lengths, draft = [3, 11, 7], random_tokens(3, 5)
    chat = chats(lengths, 4)
    together = write_tokens(MODELS[0], chat, VOCABULARY, COUNT, draft=draft)
    for row, length in enumerate(lengths):
        rest = slice(chat.mask.shape[1] - length, None)
        alone = ChatInputs(*(part[row : row + 1, rest] for part in (chat.input_ids, chat.mask, chat.positions)))
        written = plain(MODELS[0], alone)
        assert torch.equal(written.tokens[0], together.tokens[row])
        assert torch.allclose(written.queries[0], together.queries[row], atol=1e-4)


def test_passes_are_counted_as_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    model, chat = MODELS[0], chats([5, 5], 1)
    made, inner = [], model.model.forward

    def counting(*args: object, **kwargs: object) -> object:
        made.append(len(kwargs["input_ids"]))  # type: ignore[arg-type]
        return inner(*args, **kwargs)

    monkeypatch.setattr(model.model, "forward", counting)
    greedy = plain(model, chat)
    assert greedy.passes.tolist() == [COUNT + 1] * 2 and len(made) == COUNT + 1
    made.clear()
    assert write_tokens(model, chat, VOCABULARY, COUNT, draft=greedy.tokens).passes.tolist() == [1, 1]
    assert made == [2]
    made.clear()
    draft = greedy.tokens.clone()
    draft[1, 9] = (draft[1, 9] + 1) % CODES
    written = write_tokens(model, chat, VOCABULARY, COUNT, draft=draft)
    assert written.passes[0] == 1 and written.passes[1] == len(made) > 1
    assert made[1:] == [1] * (len(made) - 1)  # the row that is done is no longer computed


def test_a_draft_wrong_everywhere_costs_no_more_passes_than_none() -> None:
    for seed, model in enumerate(MODELS):
        chat = chats([4, 8], seed)
        greedy = plain(model, chat)
        written = write_tokens(model, chat, VOCABULARY, COUNT, draft=(greedy.tokens + 1) % CODES)
        same(written, greedy)
        assert int(written.passes.max()) <= COUNT + 1


def test_ties_are_decided_as_for_a_face_alone_without_a_draft(small_model: Callable[..., Qwen3ForCausalLM]) -> None:
    model, chat = small_model(TEXT + CODES, 7), chats([6, 4], 2)
    rows = model.lm_head.weight.data[TEXT:]
    rows[1::2] = rows[::2]  # every image token has a twin: every choice is a tie
    greedy = plain(model, chat)
    written = write_tokens(model, chat, VOCABULARY, COUNT, draft=greedy.tokens)
    for row, length in enumerate((6, 4)):
        own = ChatInputs(*(part[row : row + 1, 6 - length :] for part in (chat.input_ids, chat.mask, chat.positions)))
        alone = plain(model, own)
        assert torch.equal(written.tokens[row], alone.tokens[0])
        assert torch.equal(written.queries[row], alone.queries[0])
    assert written.passes.tolist() == [1 + COUNT + 1] * 2


def test_only_the_row_with_a_tie_is_decoded_again(small_model: Callable[..., Qwen3ForCausalLM]) -> None:
    model, chat = small_model(TEXT + CODES, 7), chats([6, 6], 2)
    greedy = plain(model, chat)
    once = next(t for t in greedy.tokens[0].tolist() if t not in greedy.tokens[1].tolist())
    unused = next(t for t in range(CODES) if t not in greedy.tokens.unique().tolist())
    rows = model.lm_head.weight.data[TEXT:]
    rows[unused] = rows[once]  # a twin of a token that the first row alone has
    greedy = plain(model, chat)
    written = write_tokens(model, chat, VOCABULARY, COUNT, draft=greedy.tokens)
    assert written.passes.tolist() == [1 + COUNT + 1, 1]
    assert torch.equal(written.tokens[1], greedy.tokens[1])


@torch.no_grad()
def test_unconstrained_decoding_may_write_text() -> None:
    model, chat = MODELS[1], chats([6], 3)
    written = write_tokens(model, chat, VOCABULARY, COUNT, constrained=False)
    ids = torch.cat([chat.input_ids, written.tokens + TEXT], dim=1)
    assert torch.equal(model(input_ids=ids, use_cache=False).logits[0, 5:-1].argmax(-1) - TEXT, written.tokens[0])
    assert bool((written.tokens < 0).any())
    drafted = write_tokens(model, chat, VOCABULARY, COUNT, draft=random_tokens(1, 1), constrained=False)
    same(drafted, written)


def test_half_precision_writes_what_its_own_passes_say(small_model: Callable[..., Qwen3ForCausalLM]) -> None:
    model, chat = small_model(TEXT + CODES, 0).to(torch.bfloat16), chats([5, 9], 6)
    written = write_tokens(model, chat, VOCABULARY, COUNT, draft=random_tokens(2, 2))
    assert written.queries.dtype == torch.bfloat16 and written.tokens.shape == (2, COUNT)
    logits = (written.queries[:, :-1] @ model.lm_head.weight[TEXT:].T).float()
    chosen = logits.gather(-1, written.tokens[..., None])[..., 0]
    assert bool((chosen >= logits.amax(-1) - 0.02 * logits.abs().amax(-1)).all())


def test_a_draft_that_does_not_fit_is_refused() -> None:
    chat = chats([5, 5], 1)
    with pytest.raises(InvalidInputError, match="draft"):
        write_tokens(MODELS[0], chat, VOCABULARY, COUNT, draft=random_tokens(1, 0))
    with pytest.raises(InvalidInputError, match="codebook"):
        write_tokens(MODELS[0], chat, VOCABULARY, COUNT, draft=random_tokens(2, 0) + CODES)
