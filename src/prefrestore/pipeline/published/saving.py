"""Write a pipeline in the published layout: one transformers folder, as the published training saves it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from prefrestore.models.semantic.instruction import IMAGE_END, IMAGE_START, SCALES, ImageVocabulary
from prefrestore.pipeline.published import layout

if TYPE_CHECKING:
    from prefrestore.pipeline.pipeline import PrefRestorePipeline

MODEL_TYPE, ARCHITECTURE = "blip3o_qwen", "blip3oQwenForCausalLM"
SHARD_BYTES = 4 * 10**9


def save_assembled(
    pipeline: PrefRestorePipeline,
    folder: Path,
    *,
    unread: Mapping[str, Tensor] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write config.json, ``model-*.safetensors`` with their index, and the text tokenizer's files into a folder.

    Args:
        pipeline: of the published classes; the tuned encoder is the autoencoder's own.
        unread: see `prefrestore.pipeline.published.start.unread_tensors`.
        shard_bytes: largest size of a shard, unless one tensor is larger.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pipeline.text_tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config_of(pipeline), indent=2) + "\n")
    shards: list[dict[str, Tensor]] = [{}]
    size = total = 0
    for key, tensor in _tensors(pipeline, unread or {}):
        weight = tensor.numel() * tensor.element_size()
        if shards[-1] and size + weight > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][key] = tensor
        size, total = size + weight, total + weight
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        # A copy: tensors that share memory cannot lie in one file.
        save_file({key: value.detach().cpu().clone().contiguous() for key, value in shard.items()}, folder / name)
        weight_map |= dict.fromkeys(shard, name)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def config_of(pipeline: PrefRestorePipeline) -> dict[str, Any]:
    """``config.json`` of the assembled model: Qwen3's fields, and where the image tokens lie."""
    config = pipeline.language_model.config
    values: dict[str, Any] = config.to_dict()
    rope = values.pop("rope_parameters", None) or {}
    ids, vocabulary = pipeline.text_tokenizer.convert_tokens_to_ids, ImageVocabulary.of(pipeline.text_tokenizer)
    return values | {
        "model_type": MODEL_TYPE,
        "architectures": [ARCHITECTURE],
        "rope_theta": rope.get("rope_theta", values.get("rope_theta")),
        "rope_scaling": None,
        "torch_dtype": str(next(pipeline.language_model.parameters()).dtype).removeprefix("torch."),
        "image_start_tag_id": ids(IMAGE_START),
        "image_end_tag_id": ids(IMAGE_END),
        "scale_start_token_id": ids(SCALES[0]),
        "scale_end_token_id": ids(SCALES[-1]),
        "num_scale_tokens": len(SCALES),
        "image_start_token_id": vocabulary.first,
        "image_end_token_id": vocabulary.first + vocabulary.size - 1,
        "num_image_tokens": vocabulary.size,
        "mm_use_im_start_end": False,
        "mm_patch_merge_type": "flat",
        "tokenizer_padding_side": "right",
        "tokenizer_model_max_length": int(pipeline.text_tokenizer.model_max_length),
    }


@torch.no_grad()
def share_norm(connectors: Any) -> None:
    """The published connectors are built around one norm: what the first one's has learnt is the second one's, too."""
    first, second = (getattr(connectors, name)[3].weight for name in layout.CONNECTORS)
    second.copy_(first)


def _tensors(pipeline: PrefRestorePipeline, unread: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for key, value in pipeline.language_model.state_dict().items():
        if key == "lm_head.weight" or key.startswith("model."):
            yield key, value
    for name, prefix in layout.PREFIXES.items():
        for key, value in getattr(pipeline, name).state_dict().items():
            yield prefix + key, value
    for key, value in pipeline.connectors.state_dict().items():
        yield f"model.{key}", value
    yield from unread.items()
