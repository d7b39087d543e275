"""A preset's components without weights, on torch's meta device: for their sizes, and to be filled."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderDC, SanaTransformer2DModel
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from prefrestore.models.semantic.instruction import SPECIALS
from prefrestore.models.semantic.ta_tok import TATok
from prefrestore.models.semantic.tokenizer import SemanticTokenizer
from prefrestore.models.texture.autoencoder import ResidualAutoencoder
from prefrestore.models.texture.conditioning import Connectors
from prefrestore.models.texture.lq_encoder import LatentEncoder
from prefrestore.pipeline.presets import Preset

ASSUMED: dict[str, dict[str, Any]] = {
    # Qwen3-1.7B, the published Qwen3 of this width; its table of 151,936 and TA-Tok's 65,536 + 5 tokens behind it.
    "language_model": {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": False,
        "vocab_size": 151_936 + 65_536 + 5,
    },
    "image_tokenizer": {"code_dim": 1536},
    "transformer": {"qk_norm": "rms_norm_across_heads"},  # SANA 1.5
}
"""What the preset ``paper`` leaves to the checkpoint, assumed for the sizes' sake: a file's own shapes may differ."""


def empty_components(preset: Preset, dtype: torch.dtype) -> dict[str, Any]:
    """The preset's components, by the pipeline's names; for ``paper`` see `ASSUMED`."""
    published = "vocabulary_from" in preset.language_model
    assumed = ASSUMED if published else dict.fromkeys(ASSUMED, {})
    language = dict(assumed["language_model"]) if published else dict(preset.language_model)
    if not published:
        text, codes = preset.text_tokenizer["text_vocabulary"], preset.image_tokenizer["codebook_size"]
        language["vocab_size"] = text + len(SPECIALS) + codes
    tokenizer, autoencoder = (TATok, AutoencoderDC) if published else (SemanticTokenizer, ResidualAutoencoder)
    inner = preset.transformer["num_attention_heads"] * preset.transformer["attention_head_dim"]
    with init_empty_weights():
        parts: dict[str, Any] = {
            "image_tokenizer": tokenizer(**{**preset.image_tokenizer, **assumed["image_tokenizer"]}),
            "language_model": Qwen3ForCausalLM(Qwen3Config(**language)),
            "lq_encoder": LatentEncoder(**preset.lq_encoder) if preset.lq_encoder else None,
            "connectors": Connectors(language["hidden_size"], inner, preset.transformer["caption_channels"]),
            "transformer": SanaTransformer2DModel(**{**preset.transformer, **assumed["transformer"]}),
            "autoencoder": autoencoder(**preset.autoencoder),
        }
    parts["language_model"].tie_weights()  # the embeddings and the head were made empty one by one
    # nn.Module.to: diffusers' own would warn of types that these classes do not have.
    return {name: nn.Module.to(part.eval(), "meta", dtype) for name, part in parts.items() if part is not None}
