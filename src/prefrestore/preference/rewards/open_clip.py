"""A CLIP state dict of open_clip, as a transformers `CLIPModel`: the same network under other names."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefrestore.errors import WeightsError

# Each tower's names in open_clip and in transformers; the towers' blocks are alike. "pre_layrnorm" is spelt so.
_TOWERS = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_BLOCK_NAME = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+?)(\.weight|\.bias|_weight|_bias)")
_TRANSPOSED = ("visual.proj", "text_projection")  # open_clip multiplies x @ proj, transformers a linear layer


def to_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an open_clip ViT under `CLIPModel`'s names; queries, keys and values taken apart.

    Raises:
        WeightsError: a name that no open_clip ViT has.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        block = _BLOCK_NAME.fullmatch(name)
        module, dot, kind = name.rpartition(".")
        if name == "attn_mask":  # the causal mask, which older versions saved
            continue
        if block and block[3] == "attn.in_proj":
            for part, value in zip("qkv", tensor.chunk(3), strict=True):
                converted[f"{_layer(block)}.self_attn.{part}_proj.{block[4][1:]}"] = value
        elif block and block[3] in _BLOCK:
            converted[f"{_layer(block)}.{_BLOCK[block[3]]}{block[4]}"] = tensor
        elif name in _TOWERS:
            converted[_TOWERS[name]] = tensor.T if name in _TRANSPOSED else tensor
        elif module in _TOWERS:
            converted[_TOWERS[module] + dot + kind] = tensor
        else:
            raise WeightsError(f"{name} is no weight of an open_clip ViT")
    return converted


def load_open_clip(reward: str, path: Path, config: str | Path) -> Any:
    """The `CLIPModel` of a state dict file; ``config`` is a hub id or folder of the same architecture.

    Raises:
        WeightsError: a file cannot be read, or the weights do not fit the configuration.
    """
    from transformers import CLIPConfig, CLIPModel

    state = _read(reward, path)
    try:
        architecture = CLIPConfig.from_pretrained(str(config))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"the reward {reward} cannot read the configuration of a CLIP model from {config}: name a folder or a hub "
            "id with its option 'model'"
        ) from error
    weights = {name: tensor.float() for name, tensor in to_transformers(state).items()}
    try:
        network, report = CLIPModel.from_pretrained(
            None, config=architecture, state_dict=weights, output_loading_info=True
        )
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit the CLIP model of {config}: {error}") from error
    wrong = sorted(map(str, [*report["missing_keys"], *report["unexpected_keys"], *report["mismatched_keys"]]))
    if wrong:
        raise WeightsError(f"{path} does not fit the CLIP model of {config}: {wrong[0]} is missing, surplus or differs")
    return network


def _layer(block: re.Match[str]) -> str:
    return f"{'vision' if block[1] else 'text'}_model.encoder.layers.{block[2]}"


def _read(reward: str, path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise WeightsError(
            f"the reward {reward} cannot read {path}: name an open_clip state dict with its option 'open_clip'"
        ) from error
    state = content.get("state_dict", content)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}
