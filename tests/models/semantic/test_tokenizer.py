"""The discrete tokenizer and its quantiser, against hand-made codes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from prefrestore.errors import InvalidInputError
from prefrestore.models.semantic.quantizer import SimVQ, perplexity
from prefrestore.models.semantic.tokenizer import SemanticTokenizer


def tiny(seed: int = 0) -> SemanticTokenizer:
    tokenizer = SemanticTokenizer(
        image_size=32,
        patch_size=4,
        widths=(16, 24),
        blocks=(1, 1),
        attention_layers=1,
        attention_heads=2,
        codebook_size=32,
        code_dim=8,
        low_resolution=16,
        decoder_width=16,
        identity_dim=12,
    )
    return tokenizer.initialise(torch.Generator().manual_seed(seed))


def images(count: int = 3, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def by_hand() -> SimVQ:
    """Three codes in the plane; the linear layer turns by 90 degrees and is read after it."""
    quantizer = SimVQ(3, 2)
    with torch.no_grad():
        quantizer.embedding.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 5.0], [-3.0, 0.0]]))
        quantizer.embedding_proj.weight.copy_(torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
        quantizer.embedding_proj.bias.zero_()
    return quantizer


def test_the_nearest_code_is_the_most_parallel_one() -> None:
    quantizer = by_hand()  # codes seen: up, left, down
    assert torch.allclose(quantizer.codebook(), torch.tensor([[0.0, 1], [-1, 0], [0, -1]]), atol=1e-6)
    features = torch.tensor([[[0.1, 7.0], [-0.2, -0.1], [9.0, -10.0]]])
    assert quantizer.nearest(features).tolist() == [[0, 1, 2]]
    quantized = quantizer(features)
    assert quantized.indices.tolist() == [[0, 1, 2]]
    assert torch.allclose(quantized.codes[0], quantizer.codebook(), atol=1e-6)


def test_commitment_by_hand_and_the_straight_through_gradient() -> None:
    quantizer = by_hand()
    features = torch.tensor([[[0.6, 0.8]]], requires_grad=True)
    quantized = quantizer(features)
    # |(0.6, 0.8) - (0, 1)|^2 = 0.4, once in full and once times beta = 0.25
    assert quantized.commitment.item() == pytest.approx(0.5, abs=1e-6)
    quantized.codes[..., 0].sum().backward()
    # d(x / |x|)_0 / dx at a unit vector: (1 - x0^2, -x0 x1)
    assert features.grad is not None
    assert torch.allclose(features.grad, torch.tensor([[[0.64, -0.48]]]), atol=1e-5)


def test_the_codebook_is_frozen_and_moves_through_its_linear_layer() -> None:
    quantizer = by_hand()
    quantizer(torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))).commitment.backward()
    assert quantizer.embedding.weight.grad is None
    assert quantizer.embedding_proj.weight.grad is not None


def test_perplexity_by_hand() -> None:
    assert perplexity(torch.tensor([[0, 1], [2, 3]]), 8).item() == pytest.approx(4)
    assert perplexity(torch.zeros(5, dtype=torch.long), 8).item() == pytest.approx(1)


def test_shapes_and_ranges() -> None:
    tokenizer = tiny()
    indices = tokenizer.encode(images())
    assert tokenizer.num_tokens == 16 and indices.shape == (3, 16) and indices.dtype == torch.int64
    assert 0 <= int(indices.min()) and int(indices.max()) < 32
    said = tokenizer.decode(indices)
    assert said.low_resolution.shape == (3, 3, 16, 16) and said.points.shape == (3, 5, 2)
    assert torch.allclose(said.identity.norm(dim=1), torch.ones(3), atol=1e-5)


def test_encoding_is_the_quantiser_s_index_and_does_not_depend_on_the_batch() -> None:
    tokenizer = tiny()
    quantized, said = tokenizer(images())
    indices = tokenizer.encode(images())
    assert torch.equal(quantized.indices, indices)
    assert torch.equal(tokenizer.encode(images()[1:2])[0], indices[1])
    assert torch.allclose(tokenizer.decode(indices).low_resolution, said.low_resolution, atol=1e-5)


def test_losses_by_hand_and_unknown_points_do_not_count() -> None:
    tokenizer, faces = tiny(), images(2)
    identity = F.normalize(torch.randn(2, 12, generator=torch.Generator().manual_seed(2)), dim=1)
    points = torch.full((2, 5, 2), torch.nan)
    points[0] = 0.25
    losses = tokenizer.losses(faces, identity, points)
    _, said = tokenizer(faces)
    reduced = faces.unflatten(2, (16, 2)).unflatten(4, (16, 2)).mean((3, 5))
    assert torch.allclose(losses["pixel"], (said.low_resolution - reduced).abs().mean(), atol=1e-6)
    assert torch.allclose(losses["points"], (said.points[0] - 0.25).abs().mean(), atol=1e-6)
    assert torch.allclose(losses["identity"], 1 - (said.identity * identity).sum(1).mean(), atol=1e-6)
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in tokenizer.named_parameters() if p.requires_grad}
    assert all(g is not None and torch.isfinite(g).all() for g in gradients.values())
    unknown = tokenizer.losses(faces, identity, torch.full((2, 5, 2), torch.nan))
    assert unknown["points"] == 0


def test_weights_come_from_the_generator_alone() -> None:
    torch.manual_seed(1)
    first = tiny(5)
    torch.manual_seed(2)
    second, other = tiny(5), tiny(6)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert not torch.equal(first.stem.weight, other.stem.weight)


def test_save_and_load(tmp_path: Path) -> None:
    tokenizer = tiny(7)
    tokenizer.save_pretrained(tmp_path)
    loaded = SemanticTokenizer.from_pretrained(tmp_path)
    assert loaded.config.widths == (16, 24) or list(loaded.config.widths) == [16, 24]
    assert torch.equal(loaded.encode(images()), tokenizer.encode(images()))


@pytest.mark.parametrize(
    "changes",
    [{"image_size": 36}, {"low_resolution": 12}, {"blocks": (1,)}],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, object]) -> None:
    sizes = {"image_size": 32, "patch_size": 4, "widths": (16, 24), "blocks": (1, 1), "low_resolution": 16}
    with pytest.raises(InvalidInputError):
        SemanticTokenizer(**{**sizes, **changes})  # type: ignore[arg-type]


def test_another_image_size_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="32"):
        tiny().encode(torch.zeros(1, 3, 64, 64))
