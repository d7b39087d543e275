"""Random components with the paper's architecture, at full size or every width and depth divided, for paper_scale.py.

The language model is random except for its first layer, which is built by hand so that the model tends to repeat the
LQ image's token at the place it writes: one attention head a key group looks back exactly as far as the same place in
the LQ image lies (rotary phases set for that distance) and moves the token's embedding to where the head of the model
reads it. The random layers behind it disturb that; ``copy_strength`` says how much it weighs against them. Nothing of
this tells how often the published weights agree with their LQ tokens: it is a dial to sweep.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderDC, SanaTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM, SiglipVisionConfig, SiglipVisionModel

from prefrestore.models.semantic.instruction import ChatInputs, ImageVocabulary
from prefrestore.models.semantic.integrator import build_language_model
from prefrestore.models.texture.conditioning import Connectors

PLACES = 27 * 27
BEFORE, AFTER = 24, 20  # chat tokens before the image and behind it, about what the instruction takes


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Widths divided by ``narrow`` and depths by ``shallow``; ``codes`` of 65,536, and text ids in proportion."""

    narrow: int
    shallow: float
    codes: int

    def depth(self, layers: int, least: int = 2) -> int:
        return max(least, round(layers / self.shallow))


FULL = Shapes(narrow=1, shallow=1, codes=65536)
SMALL = Shapes(narrow=4, shallow=3.5, codes=4096)
TINY = Shapes(narrow=8, shallow=14, codes=256)


class Tokenizer(nn.Module):
    """TA-Tok's way with random weights: SigLIP hidden state [-2], a linear layer, the nearest code by cosine.

    A random network gives most places the same few tokens: run it for its time and take random tokens.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        width = 1152 // shapes.narrow
        config = SiglipVisionConfig(
            hidden_size=width,
            intermediate_size=4304 // shapes.narrow // 8 * 8,
            num_hidden_layers=shapes.depth(27),
            num_attention_heads=16 // shapes.narrow,
            image_size=384,
            patch_size=14,
        )
        self.vision = SiglipVisionModel(config)
        self.project = nn.Linear(width, 1536 // shapes.narrow)
        self.codes = nn.Parameter(torch.randn(shapes.codes, 1536 // shapes.narrow))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B,3,512,512) in [-1,1] -> tokens (B,729)."""
        small = F.interpolate(images, size=(384, 384), mode="bicubic", antialias=True).clamp(-1, 1)
        states = self.vision(small, output_hidden_states=True).hidden_states[-2]
        similarity = F.normalize(self.project(states), dim=-1) @ F.normalize(self.codes, dim=-1).T
        return similarity.argmax(-1)


@dataclass(frozen=True, kw_only=True)
class Models:
    """The components of one random checkpoint."""

    tokenizer: Tokenizer
    language_model: Qwen3ForCausalLM
    vocabulary: ImageVocabulary
    connectors: Connectors
    transformer: SanaTransformer2DModel
    autoencoder: AutoencoderDC

    def parts(self) -> list[nn.Module]:
        return [part for part in vars(self).values() if isinstance(part, nn.Module)]


def vocabulary(shapes: Shapes) -> ImageVocabulary:
    """Text ids before the image tokens, in Qwen3's proportion."""
    return ImageVocabulary(first=151_936 * shapes.codes // 65536, size=shapes.codes, end=1, pad=2)


def language_model(shapes: Shapes, vocabulary: ImageVocabulary, seed: int) -> Qwen3ForCausalLM:
    """Qwen3-1.7B's shapes; random layers."""
    config = Qwen3Config(
        vocab_size=vocabulary.first + vocabulary.size,
        hidden_size=2048 // shapes.narrow,
        intermediate_size=6144 // shapes.narrow,
        num_hidden_layers=shapes.depth(28),
        num_attention_heads=16 // shapes.narrow,
        num_key_value_heads=8 // shapes.narrow,
        head_dim=128,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=False,
        initializer_range=0.05,
    )
    return build_language_model(config, torch.Generator().manual_seed(seed))


@torch.no_grad()
def make_copying(model: Qwen3ForCausalLM, vocabulary: ImageVocabulary, distance: int, copy_strength: float) -> None:
    """Set the embeddings, the head and the first layer's attention; see the module's text.

    The first half of the width holds a token's random code (place 0: the same constant for all), the second half what
    has been copied.
    """
    config = model.config
    half, size = config.hidden_size // 2, config.head_dim
    generator = torch.Generator().manual_seed(1)
    codes = torch.randn(config.vocab_size, half, generator=generator)
    codes[:, 0] = 4
    embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
    embedding.zero_()[:, :half] = codes
    head.zero_()[vocabulary.first :, half + 1 :] = codes[vocabulary.first :, 1:]
    attention = model.model.layers[0].self_attn
    for part in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
        part.weight.zero_()
    turn = 1e6 ** (-torch.arange(size // 2) / (size // 2)) * -distance
    attention.q_proj.weight[:, 0] = torch.cat([turn.cos(), turn.sin()]).repeat(config.num_attention_heads)
    attention.k_proj.weight[:, 0] = (torch.arange(size) < size // 2).float().repeat(config.num_key_value_heads)
    attention.q_norm.weight.fill_(9)  # one place further off the score is 19 lower
    attention.k_norm.weight.fill_(9)
    attention.v_proj.weight[:, :half] = torch.eye(half)
    group = config.num_attention_heads // config.num_key_value_heads
    for key in range(config.num_key_value_heads):
        into, of = half + key * size, key * group * size
        attention.o_proj.weight[into : into + size, of : of + size] = copy_strength * torch.eye(size)


def build(shapes: Shapes, seed: int = 0) -> Models:
    """One random checkpoint; the same seed gives the same weights."""
    torch.manual_seed(seed)
    known = vocabulary(shapes)
    inner = 70 // shapes.narrow * 32
    cross_heads = max(1, 20 // shapes.narrow)
    denoiser: dict[str, Any] = {
        "in_channels": 32,
        "out_channels": 32,
        "num_attention_heads": inner // 32,
        "attention_head_dim": 32,
        "num_layers": shapes.depth(20),
        "num_cross_attention_heads": cross_heads,
        "cross_attention_head_dim": inner // cross_heads,
        "cross_attention_dim": inner,
        "caption_channels": 2304 // shapes.narrow,
        "mlp_ratio": 2.5,
        "sample_size": 16,
        "patch_size": 1,
    }
    widths = tuple(width // shapes.narrow for width in (128, 256, 512, 512, 1024, 1024))
    autoencoder = AutoencoderDC(
        latent_channels=32,
        attention_head_dim=32,
        encoder_block_types=("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
        decoder_block_types=("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        encoder_layers_per_block=tuple(shapes.depth(layers, least=1) for layers in (2, 2, 2, 3, 3, 3)),
        decoder_layers_per_block=(shapes.depth(3, least=1),) * 6,
        encoder_qkv_multiscales=((), (), (), (5,), (5,), (5,)),
        decoder_qkv_multiscales=((), (), (), (5,), (5,), (5,)),
        downsample_block_type="Conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    )
    models = Models(
        tokenizer=Tokenizer(shapes),
        language_model=language_model(shapes, known, seed),
        vocabulary=known,
        connectors=Connectors(2048 // shapes.narrow, inner, 2304 // shapes.narrow),
        transformer=SanaTransformer2DModel(**denoiser),
        autoencoder=autoencoder,
    )
    for part in models.parts():
        part.eval().requires_grad_(False)
    return models


def chats(vocabulary: ImageVocabulary, tokens: Tensor) -> ChatInputs:
    """Chats without captions around the LQ tokens (B,729): random text ids before and behind them."""
    text = torch.randint(3, vocabulary.first, (BEFORE + AFTER,), generator=torch.Generator().manual_seed(3))
    text = text.to(tokens.device).expand(len(tokens), -1)
    ids = torch.cat([text[:, :BEFORE], tokens + vocabulary.first, text[:, BEFORE:]], dim=1)
    positions = torch.arange(ids.shape[1], device=ids.device).expand(len(ids), -1)
    return ChatInputs(ids, torch.ones_like(ids, dtype=torch.bool), positions)


# From the state that writes token i (i = 0 ...) back to token i of the LQ image.
DISTANCE = PLACES + AFTER - 1
