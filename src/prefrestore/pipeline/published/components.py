"""Empty components with the shapes of a published file, to be compared with it and filled from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import Qwen3Config

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.pipeline.components import build_component
from prefrestore.pipeline.presets import Preset, load_preset
from prefrestore.pipeline.published import layout
from prefrestore.pipeline.published.tensors import Info

LAYOUT = "paper"
"""The preset whose classes the published files hold."""

MODEL_TYPES = ("blip3o_qwen", "blip3o_qwen_inference")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What the published files do not say of themselves: arguments of the components' constructors.

    Args:
        image_tokenizer: of `TATok`. transformer: of SanaTransformer2DModel. autoencoder: of AutoencoderDC.
        face_size: side of the faces, in pixels.
    """

    image_tokenizer: dict[str, Any] = field(default_factory=dict)
    transformer: dict[str, Any] = field(default_factory=dict)
    autoencoder: dict[str, Any] = field(default_factory=dict)
    face_size: int = 512

    @classmethod
    def paper(cls) -> Architecture:
        """The published scale, from the preset ``paper``, without what its files say."""
        return cls.of(load_preset(LAYOUT))

    @classmethod
    def of(cls, preset: Preset) -> Architecture:
        """What a preset of the published classes says, without what their files say."""
        parts = {name: dict(preset.component(name).arguments) for name in ("image_tokenizer", "transformer")}
        for name, known in (("image_tokenizer", "code_dim"), ("transformer", "qk_norm")):
            parts[name].pop(known, None)
        autoencoder = dict(preset.component("autoencoder").arguments)
        return cls(autoencoder=autoencoder, face_size=preset.face_size, **parts)

    @classmethod
    def read(cls, file: Path) -> Architecture:
        """From a JSON file with these fields; what it leaves out is the paper's. Raises WeightsError."""
        values = read_json(file)
        unknown = set(values) - set(cls.__dataclass_fields__)
        if unknown:
            raise WeightsError(f"{file}: unknown entries {', '.join(sorted(unknown))}")
        return cls(**{**vars(cls.paper()), **values})


def is_published(preset: Preset) -> bool:
    """Whether a preset's components are of the published classes, whatever their sizes."""
    ours, theirs = (
        {name: part.class_name for name, part in each.components.items()} for each in (preset, load_preset(LAYOUT))
    )
    return ours == theirs


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; WeightsError where the file is missing or something else."""
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{file}: this configuration cannot be read ({error})") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{file}: this configuration is not a JSON object")
    return values


def empty(name: str, component: str, arguments: Mapping[str, Any]) -> Any:
    """A component without weights, of the published class and these arguments; ``name`` is of the file."""
    try:
        return build_component(load_preset(LAYOUT).with_arguments(component, arguments), component, "empty")
    except InvalidInputError as error:
        what = "denoiser" if component == "transformer" else component.replace("_", " ")
        told = " ".join(str(error.__cause__ or error).split())
        raise WeightsError(f"{name}: the configuration of the {what} is not valid ({told})") from error


def empty_image_tokenizer(name: str, infos: Mapping[str, Info], arguments: Mapping[str, Any]) -> Any:
    """TA-Tok without weights; the codebook's size is the file's.

    Args:
        name: of the file, for messages.
        infos: the file's tensors by the tokenizer's own names.
        arguments: of `TATok`.
    """
    codebook = infos.get("bottleneck.regularizer.embedding.weight")
    if codebook is None or len(codebook.shape) != 2:
        raise WeightsError(f"{name}: there is no codebook bottleneck.regularizer.embedding.weight of two dimensions")
    size, dim = codebook.shape
    if arguments.get("codebook_size", size) != size:
        raise WeightsError(f"{name}: the codebook has {size} codes, not {arguments['codebook_size']}")
    return empty(name, "image_tokenizer", {**arguments, "codebook_size": size, "code_dim": dim})


def empty_transformer(name: str, infos: Mapping[str, Info], arguments: Mapping[str, Any]) -> Any:
    """The denoiser without weights; whether queries and keys are normalised is the file's (SANA 1.5 does)."""
    values = dict(arguments)
    if "transformer_blocks.0.attn1.norm_q.weight" in infos:
        values["qk_norm"] = "rms_norm_across_heads"
    return empty(name, "transformer", values)


def language_model_arguments(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Qwen3's part of an assembled model's ``config.json``: no rope scaling, and a head of its own.

    Raises:
        WeightsError: it is another kind of model, or a field is missing or invalid.
    """
    if config.get("model_type") not in MODEL_TYPES:
        raise WeightsError(f"{name}: model_type is {config.get('model_type')!r}, not one of {', '.join(MODEL_TYPES)}")
    needed = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    lost = [key for key in (*needed, "num_key_value_heads", "rope_theta") if config.get(key) is None]
    if lost == ["rope_theta"] and (config.get("rope_parameters") or {}).get("rope_theta"):
        lost = []
    if lost:
        raise WeightsError(f"{name}: config.json has no {', '.join(lost)}")
    known = set(Qwen3Config().to_dict()) | {"rope_theta"}
    values = {k: v for k, v in config.items() if k in known and k not in ("model_type", "architectures", "dtype")}
    theta = values.pop("rope_theta", None) or config["rope_parameters"]["rope_theta"]
    values["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    return {**values, "tie_word_embeddings": False}


def empty_connectors(name: str, query_features: int, transformer: Any) -> Any:
    """The connectors without weights, between the language model's width and the denoiser."""
    arguments = {
        "query_features": query_features,
        "latent_features": transformer.config.num_attention_heads * transformer.config.attention_head_dim,
        "condition_features": transformer.config.caption_channels,
    }
    return empty(name, "connectors", arguments)


def infos_of(infos: Mapping[str, Info], keys: layout.Keys) -> dict[str, Info]:
    """The source's tensors by a component's own names."""
    return {name: infos[key] for name, key in keys.items()}
