"""Sampled tokens: from the right set, with the right frequencies, by the generator of their row."""

import pytest
import torch
from torch import Tensor
from transformers import Qwen3Config
from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

from prefrestore.errors import InvalidInputError
from prefrestore.models.semantic.decoding import write_tokens
from prefrestore.models.semantic.instruction import ChatInputs, ImageVocabulary
from prefrestore.models.semantic.integrator import build_language_model
from prefrestore.models.semantic.token_sampling import TokenSampling

COUNT = 12
VOCABULARY = ImageVocabulary(first=20, size=24, end=1, pad=2)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize(("top_p", "top_k"), [(0.95, 1200), (0.6, 20), (0.95, 3), (0.01, 20), (1.0, 20)])
def test_draws_follow_the_chances_that_transformers_keeps(top_p: float, top_k: int) -> None:
    logits = torch.tensor([[1.0, 3.0, 0.0, 2.5, 2.0, -1.0, 1.5]])
    kept = TopPLogitsWarper(top_p)(None, TopKLogitsWarper(min(top_k, 7))(None, logits))  # type: ignore[arg-type]
    sampling = TokenSampling(generators=generators(0), top_p=top_p, top_k=top_k)
    drawn = torch.cat([sampling.draw(logits, [0]) for _ in range(4000)])
    shares = torch.bincount(drawn, minlength=7) / len(drawn)
    assert torch.equal(shares > 0, kept[0].softmax(-1) > 0)
    assert torch.allclose(shares, kept[0].softmax(-1), atol=0.04)


def test_each_row_has_its_own_generator() -> None:
    logits = torch.zeros(2, 50)
    both = [TokenSampling(generators=generators(1, 2)).draw(logits, [0, 1]) for _ in range(2)]
    assert torch.equal(*both)
    alone = TokenSampling(generators=generators(1, 2)).draw(logits[:1], [1])
    assert alone[0] == both[0][1] and both[0][0] != both[0][1]


def test_written_tokens_are_drawn_and_a_draft_changes_nothing() -> None:
    config = Qwen3Config(
        vocab_size=44, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=100, tie_word_embeddings=False,
    )  # fmt: skip
    model = build_language_model(config, torch.Generator().manual_seed(1)).eval()
    ids = torch.tensor([[3, 7, 25, 30]] * 2)
    chat = ChatInputs(ids, torch.ones_like(ids, dtype=torch.bool), torch.arange(4).expand(2, -1))

    def run(first: int, second: int, draft: Tensor | None = None) -> Tensor:
        sampling = TokenSampling(generators=generators(first, second))
        return write_tokens(model, chat, VOCABULARY, COUNT, draft=draft, sampling=sampling).tokens

    drawn = run(1, 2)
    greedy = write_tokens(model, chat, VOCABULARY, COUNT).tokens
    assert torch.equal(drawn, run(1, 2, draft=greedy))
    assert torch.equal(drawn.flip(0), run(2, 1)) and not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn, greedy) and bool(((drawn >= 0) & (drawn < 24)).all())


@pytest.mark.parametrize("wrong", [{"top_p": 0.0}, {"top_p": 1.1}, {"top_k": 0}])
def test_values_outside_their_range(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        TokenSampling(generators=generators(0), **wrong)  # type: ignore[arg-type]
