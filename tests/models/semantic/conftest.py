"""The small language model of these tests."""

from collections.abc import Callable

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from prefrestore.models.semantic.integrator import build_language_model

SmallModel = Callable[..., Qwen3ForCausalLM]


def _build(vocabulary: int, seed: int, *, positions: int = 400, tied: bool = False) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=positions,
        tie_word_embeddings=tied,
        initializer_range=0.3,  # far from uniform logits, so that greedy choices differ from place to place
    )
    return build_language_model(config, torch.Generator().manual_seed(seed)).eval()


@pytest.fixture(scope="session")
def small_model() -> SmallModel:
    """(size of the vocabulary, seed) -> a model with random weights."""
    return _build
