"""A draft is given up as soon as it does not pay: passes and the tokens that they read are counted, not seconds."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from prefrestore.models.semantic.account import MOST_GAIN, MOST_LOSS, TOKEN_COST, Account
from prefrestore.models.semantic.decoding import Written, write_tokens
from prefrestore.models.semantic.instruction import ChatInputs, ImageVocabulary

TEXT, CODES, COUNT, PROMPT, ROWS = 20, 24, 300, 8, 2
VOCABULARY = ImageVocabulary(first=TEXT, size=CODES, end=1, pad=2)


@pytest.fixture(scope="module")
def model(small_model: Callable[..., Qwen3ForCausalLM]) -> Qwen3ForCausalLM:
    return small_model(TEXT + CODES, 1)


@pytest.fixture(scope="module")
def chat() -> ChatInputs:
    ids = torch.randint(3, TEXT + CODES, (ROWS, PROMPT), generator=torch.Generator().manual_seed(2))
    return ChatInputs(ids, torch.ones_like(ids, dtype=torch.bool), torch.arange(PROMPT).expand(ROWS, -1))


@pytest.fixture(scope="module")
def plain(model: Qwen3ForCausalLM, chat: ChatInputs) -> Written:
    return write_tokens(model, chat, VOCABULARY, COUNT)


@pytest.fixture
def fed(model: Qwen3ForCausalLM) -> Iterator[list[tuple[int, int]]]:
    """Rows and tokens a row of every pass, the prompt left out."""
    counted: list[tuple[int, int]] = []
    inner = model.model.forward

    def counting(*args: object, input_ids: Tensor, **kwargs: object) -> object:
        rows, tokens = input_ids.shape
        counted.append((rows, tokens - (0 if counted else PROMPT - 1)))
        return inner(*args, input_ids=input_ids, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.model, "forward", counting)
        yield counted


def draft_of(plain: Written, share: float) -> Tensor:
    """The right tokens, but this share of them, at random places."""
    wrong = torch.rand(plain.tokens.shape, generator=torch.Generator().manual_seed(3)) >= share
    return torch.where(wrong, (plain.tokens + 1) % CODES, plain.tokens)


def cost(fed: list[tuple[int, int]]) -> float:
    """In passes of one token a row."""
    return sum(rows / ROWS * (1 + TOKEN_COST * (tokens - 1)) for rows, tokens in fed)


@pytest.mark.parametrize(("share", "most"), [(1.0, 0.2), (0.97, 0.6), (0.5, 1.1), (0.0, 1.1)])
def test_a_draft_never_costs_much_more_than_none(
    model: Qwen3ForCausalLM, chat: ChatInputs, plain: Written, fed: list[tuple[int, int]], share: float, most: float
) -> None:
    written = write_tokens(model, chat, VOCABULARY, COUNT, draft=draft_of(plain, share))
    assert torch.equal(written.tokens, plain.tokens)
    assert torch.allclose(written.queries, plain.queries, atol=1e-4)
    assert cost(fed) <= most * (COUNT + 1)
    assert int(written.passes.max()) <= COUNT + 1
    assert written.passes.max() == len(fed)


def test_where_nothing_is_right_single_tokens_follow_after_seven_passes(
    model: Qwen3ForCausalLM, chat: ChatInputs, plain: Written, fed: list[tuple[int, int]]
) -> None:
    write_tokens(model, chat, VOCABULARY, COUNT, draft=(plain.tokens + 1) % CODES)
    assert all(tokens == 1 for _, tokens in fed[7:]) and fed[0][1] > 1


def test_a_draft_that_turns_bad_half_way_is_given_up_there(
    model: Qwen3ForCausalLM, chat: ChatInputs, plain: Written, fed: list[tuple[int, int]]
) -> None:
    draft = plain.tokens.clone()
    draft[:, COUNT // 2 :] = (draft[:, COUNT // 2 :] + 1) % CODES
    written = write_tokens(model, chat, VOCABULARY, COUNT, draft=draft)
    assert torch.equal(written.tokens, plain.tokens)
    assert sum(tokens > 1 for _, tokens in fed) < 30 and cost(fed) < COUNT


def test_the_account() -> None:
    account = Account()
    account.book(1, [1, 1])
    assert account.loss == 0
    account.book(33, [3, 7])
    assert account.loss == 1 + 32 * TOKEN_COST - 5
    account.book(65, [1])
    assert account.loss == 1 + 64 * TOKEN_COST - 1 == MOST_LOSS and account.pays
    account.book(2, [1])
    assert not account.pays
    account.book(257, [257])
    assert account.loss == -MOST_GAIN and account.pays
