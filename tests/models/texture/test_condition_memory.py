"""A denoiser that remembers its condition against diffusers' own forward pass."""

import pytest
import torch
from diffusers import SanaTransformer2DModel
from torch import Tensor

from prefrestore.models.texture.condition_memory import remembered_conditions


@pytest.fixture(scope="module", params=[None, "rms_norm_across_heads"])
def transformer(request: pytest.FixtureRequest) -> SanaTransformer2DModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SanaTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=2,
            num_cross_attention_heads=2,
            cross_attention_head_dim=16,
            cross_attention_dim=32,
            caption_channels=24,
            sample_size=8,
            patch_size=1,
            qk_norm=request.param,
        ).eval()


def call(transformer: SanaTransformer2DModel, seed: int, condition: Tensor) -> Tensor:
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    t = torch.tensor([900.0, 100.0 * seed])
    return transformer(x, encoder_hidden_states=condition, timestep=t, return_dict=False)[0]


@torch.no_grad()
def test_every_pass_under_every_condition_is_what_it_was(transformer: SanaTransformer2DModel) -> None:
    generator = torch.Generator().manual_seed(5)
    conditions = [torch.randn(2, 9, 24, generator=generator), torch.zeros(2, 9, 24)]
    expected = [call(transformer, seed, condition) for seed in range(3) for condition in conditions]
    projections: list[int] = []
    handles = [
        layer.register_forward_hook(lambda module, args, output: projections.append(1))
        for block in transformer.transformer_blocks
        for layer in (block.attn2.to_k, block.attn2.to_v)
    ]
    with remembered_conditions(transformer):
        remembered = [call(transformer, seed, condition) for seed in range(3) for condition in conditions]
    for handle in handles:
        handle.remove()
    for got, wanted in zip(remembered, expected, strict=True):
        assert torch.allclose(got, wanted, atol=1e-5)
    assert not torch.allclose(expected[0], expected[1], atol=1e-3)
    assert len(projections) == 2 * 2 * len(conditions)  # layers, keys and values; not once a step


@torch.no_grad()
def test_zeros_of_any_number_are_one_condition(transformer: SanaTransformer2DModel) -> None:
    """Attention over equal keys and values is that value: guidance's empty condition needs one token only."""
    many, one = (call(transformer, 1, torch.zeros(2, tokens, 24)) for tokens in (9, 1))
    assert torch.allclose(many, one, atol=1e-5)


def test_nothing_stays_behind_and_gradients_are_left_alone(transformer: SanaTransformer2DModel) -> None:
    before = [block.attn2.processor for block in transformer.transformer_blocks]
    condition = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(6)).requires_grad_()
    with remembered_conditions(transformer):  # gradients are on here
        assert [block.attn2.processor for block in transformer.transformer_blocks] == before
        call(transformer, 1, condition).sum().backward()
    assert condition.grad is not None and condition.grad.abs().sum() > 0
    with pytest.raises(RuntimeError, match="stop"), torch.no_grad(), remembered_conditions(transformer):
        raise RuntimeError("stop")
    assert [block.attn2.processor for block in transformer.transformer_blocks] == before
    assert not transformer._forward_pre_hooks
