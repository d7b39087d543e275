"""Empty components with the shapes of a published file, to be compared with it and filled from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import init_empty_weights
from diffusers import AutoencoderDC, SanaTransformer2DModel
from transformers import Qwen3Config, Qwen3ForCausalLM

from prefrestore.errors import WeightsError
from prefrestore.models.semantic.ta_tok import TATok
from prefrestore.models.texture.conditioning import Connectors
from prefrestore.pipeline.published import layout
from prefrestore.pipeline.published.tensors import Info

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        """The published scale, from the preset ``paper``."""
        from prefrestore.pipeline.presets import load_preset

        preset = load_preset("paper")
        return cls(
            image_tokenizer=preset.image_tokenizer,
            transformer=preset.transformer,
            autoencoder=preset.autoencoder,
            face_size=preset.face_size,
        )

    @classmethod
    def read(cls, file: Path) -> Architecture:
        """From a JSON file with these fields; what it leaves out is the paper's. Raises WeightsError."""
        values = read_json(file)
        unknown = set(values) - set(cls.__dataclass_fields__)
        if unknown:
            raise WeightsError(f"{file}: unknown entries {', '.join(sorted(unknown))}")
        return cls(**{**vars(cls.paper()), **values})


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; WeightsError where the file is missing or something else."""
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{file}: this configuration cannot be read ({error})") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{file}: this configuration is not a JSON object")
    return values


@contextmanager
def _refusal(name: str, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # every library has its own kinds
        told = " ".join(str(error).split())
        raise WeightsError(f"{name}: the configuration of the {what} is not valid ({told})") from error


def empty_image_tokenizer(name: str, infos: Mapping[str, Info], arguments: Mapping[str, Any]) -> TATok:
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
    with _refusal(name, "image tokenizer"), init_empty_weights():
        return TATok(**{**arguments, "codebook_size": size, "code_dim": dim}).eval()


def empty_transformer(name: str, infos: Mapping[str, Info], arguments: Mapping[str, Any]) -> SanaTransformer2DModel:
    """The denoiser without weights; whether queries and keys are normalised is the file's (SANA 1.5 does)."""
    values = dict(arguments)
    if "transformer_blocks.0.attn1.norm_q.weight" in infos:
        values["qk_norm"] = "rms_norm_across_heads"
    with _refusal(name, "denoiser"), init_empty_weights():
        return SanaTransformer2DModel(**values).eval()


def empty_autoencoder(name: str, arguments: Mapping[str, Any]) -> AutoencoderDC:
    """The autoencoder without weights."""
    with _refusal(name, "autoencoder"), init_empty_weights():
        return AutoencoderDC(**arguments).eval()


def language_model_config(name: str, config: Mapping[str, Any]) -> Qwen3Config:
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
    with _refusal(name, "language model"):
        return Qwen3Config(**{**values, "tie_word_embeddings": False})


def empty_language_model(config: Qwen3Config) -> Qwen3ForCausalLM:
    """The language model without weights."""
    with init_empty_weights():
        return Qwen3ForCausalLM(config).eval()


def empty_connectors(query_features: int, transformer: SanaTransformer2DModel) -> Connectors:
    """The connectors without weights, between the language model's width and the denoiser."""
    inner = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    with init_empty_weights():
        return Connectors(query_features, inner, transformer.config.caption_channels).eval()


def infos_of(infos: Mapping[str, Info], keys: layout.Keys) -> dict[str, Info]:
    """The source's tensors by a component's own names."""
    return {name: infos[key] for name, key in keys.items()}
