"""What a caption tells of a face, and what that changes in the posterior mean: the language model's words, acted on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.models.offload import at_work
from prefrestore.models.texture.lq_encoder import FaceLayer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM


class PromptReader(nn.Module):
    """The language model's states of a caption -> for each attribute how likely each class was told; the rest: nothing.

    One query an attribute looks at the states; what it finds is one of the classes, or that nothing was said.

    Args:
        query_features: width of the language model.
        classes: how many each attribute has.
    """

    def __init__(self, query_features: int, classes: Sequence[int], width: int = 128, heads: int = 4) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.norm = nn.LayerNorm(query_features)
        self.embed = nn.Linear(query_features, width)
        self.context = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.asked = nn.Parameter(torch.randn(len(self.classes), width) * width**-0.5)
        self.look = nn.MultiheadAttention(width, heads, batch_first=True)
        self.heads = nn.ModuleList(nn.Linear(width, count + 1) for count in self.classes)

    def forward(self, states: Tensor, mask: Tensor) -> list[Tensor]:
        """States (B,L,query_features), which of them are words (B,L) bool -> scores (B,C+1) of each attribute.

        The last class of each is that nothing is told.
        """
        words = self.context(self.embed(self.norm(states)), src_key_padding_mask=~mask)
        found, _ = self.look(
            self.asked.expand(len(states), -1, -1), words, words, key_padding_mask=~mask, need_weights=False
        )
        return [head(found[:, place]) for place, head in enumerate(self.heads)]

    def told(self, states: Tensor, mask: Tensor) -> Tensor:
        """The same -> (B, sum of the classes): the likeliest class of each attribute is 1, unless nothing is told."""
        scores = self.forward(states, mask)
        rows = [F.one_hot(each.argmax(1), each.shape[1])[:, :-1] for each in scores]
        return torch.cat(rows, dim=1).to(states.dtype)


class _SteeredLayer(nn.Module):
    """A layer of the LQ encoder, whose input and change what was told scales, shifts and gates."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.layer = FaceLayer(width, heads)
        self.modulate = nn.Linear(width, 3 * width, bias=False)
        nn.init.zeros_(self.modulate.weight)

    def forward(self, features: Tensor, told: Tensor) -> Tensor:
        """Features (B,width,h,w), what was told (B,width) -> the former's shape."""
        scale, shift, gate = self.modulate(told)[..., None, None].chunk(3, dim=1)
        made = self.layer(features * (1 + scale) + shift)
        return features + (1 + gate) * (made - features)


class Steering(ModelMixin, ConfigMixin):
    """What is added to the latents: ``project(features * gate(told))``; nothing told, nothing changed, to the bit.

    The queries of a language model that copies say what it sees, and hardly what it was told; its states of the caption
    itself say that. They are read into attributes, so that a user can be told what of a prompt was understood, and what
    is not understood changes nothing. It stands behind the LQ encoder: the posterior mean is where a severely degraded
    face lost its glasses or its smile.

    Args:
        query_features: width of the language model.
        classes: how many each attribute has (`prefrestore.data.attributes.CLASSES`).
        latent_channels, side: of the latents; the learned positions are resized for other sides.
        patch: side of the square of latents that makes a token; neighbouring squares overlap by half of it.
        width, layers, heads: of the layers.
    """

    @register_to_config
    def __init__(
        self,
        query_features: int,
        classes: Sequence[int] = (3, 4, 3, 4, 6, 2, 2, 3),
        latent_channels: int = 16,
        side: int = 32,
        patch: int = 2,
        width: int = 256,
        layers: int = 3,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.reader = PromptReader(query_features, classes)
        self.embed = nn.Conv2d(latent_channels, width, 2 * patch, stride=patch, padding=patch // 2)
        self.position = nn.Parameter(torch.randn(1, width, side // patch, side // patch) * 0.02)
        # Without biases, and a GELU of zero is zero: what was not told is zero all the way.
        self.told = nn.Sequential(
            nn.Linear(sum(classes), width, bias=False),
            nn.GELU(approximate="tanh"),
            nn.Linear(width, width, bias=False),
        )
        self.blocks = nn.ModuleList(_SteeredLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, width, bias=False)
        self.project = nn.ConvTranspose2d(
            width, latent_channels, 2 * patch, stride=patch, padding=patch // 2, bias=False
        )
        nn.init.zeros_(self.project.weight)

    def forward(self, latents: Tensor, told: Tensor) -> Tensor:
        """Scaled latents (B,C,h,w) and what was told (B, sum of the classes), 0 or 1 -> what is added to the former."""
        features = self.embed(latents)
        position: Tensor = self.position
        if position.shape[-2:] != features.shape[-2:]:
            position = F.interpolate(position, size=features.shape[-2:], mode="bicubic")
        features, said = features + position, self.told(told)
        for block in self.blocks:
            features = block(features, said)
        normed = self.norm(features.movedim(1, -1)).movedim(-1, 1)
        return cast(Tensor, self.project(normed * self.gate(said)[..., None, None]))


@torch.no_grad()
def caption_states(
    language_model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, captions: Sequence[str | None]
) -> tuple[Tensor, Tensor]:
    """The language model's last states of captions, without any image: (B,L,D), and which are words (B,L) bool.

    None, or a caption of no tokens, has one token of padding, which counts as a word that says nothing.
    """
    pad = cast(int, tokenizer.pad_token_id)
    rows: list[Any] = [tokenizer(text or "", add_special_tokens=False)["input_ids"] or [pad] for text in captions]
    length = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows], device=language_model.device)
    mask = torch.tensor([[place < len(row) for place in range(length)] for row in rows], device=language_model.device)
    # Padding stands behind the words, and attention is causal: no word sees it.
    states = language_model.model(input_ids=ids, attention_mask={"full_attention": None}, use_cache=False)
    return states.last_hidden_state, mask


@torch.no_grad()
def steered(
    steering: Steering | None,
    latents: Tensor,
    language_model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    captions: Sequence[str | None],
) -> Tensor:
    """Scaled latents (B,C,h,w) float32 and a caption or None each -> those that the captions ask for.

    Without a steering, or any caption, they stay as they are.
    """
    if steering is None or not any(captions):
        return latents
    with at_work(language_model):
        states, mask = caption_states(language_model, tokenizer, captions)
    with at_work(steering):
        told = steering.reader.told(states.to(steering.dtype), mask.to(states.device))
        told[torch.tensor([not text for text in captions])] = 0  # whatever padding looks like to the reader
        return latents + steering(latents.to(steering.dtype), told).float()
