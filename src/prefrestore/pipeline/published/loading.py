"""Open a published file or folder, compare it with the components it should hold, and fill them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.models.adapter import adapter_folder, adapter_tensors, load_adapter
from prefrestore.pipeline.presets import load_preset
from prefrestore.pipeline.published import adapter, components, layout
from prefrestore.pipeline.published.components import Architecture, read_json
from prefrestore.pipeline.published.tensors import PickledTensors, SafetensorsFolder, TensorSource
from prefrestore.pipeline.published.text import load_text_tokenizer

if TYPE_CHECKING:
    from diffusers import AutoencoderDC, SanaTransformer2DModel
    from torch import nn
    from transformers import PreTrainedTokenizerFast

    from prefrestore.models.semantic.ta_tok import TATok

# Where the adapter lies in a published folder and in one of ours; the latter is also its name on the denoiser.
ADAPTER_FOLDER, ADAPTER_NAME = "lora", "preference"


class Part(NamedTuple):
    """An empty component, its tensors' keys, and where they are."""

    module: Any
    keys: layout.Keys
    source: TensorSource

    def filled(self, dtype: torch.dtype | None = None) -> nn.Module:
        """The component with its weights, frozen; ``dtype`` None keeps the file's."""
        owners: dict[str, list[str]] = {}
        for name, key in self.keys.items():
            owners.setdefault(key, []).append(name)
        state = {
            name: tensor.to(dtype or tensor.dtype, copy=len(owners[key]) > 1)
            for key, tensor in self.source.read(owners)
            for name in owners[key]
        }
        self.module.load_state_dict(state, assign=True)
        return self.module.eval().requires_grad_(False)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A published file or folder whose every key is accounted for.

    parts: by the pipeline's names of the components. text_tokenizer: with an assembled model. adapter: folder of its
    preference adapter. notes: sentences about what a user should know.
    """

    parts: dict[str, Part]
    face_size: int
    text_tokenizer: PreTrainedTokenizerFast | None = None
    adapter: Path | None = None
    notes: list[str] = field(default_factory=list)


def is_assembled(folder: Path) -> bool:
    """Whether a folder is an assembled model in the published layout."""
    if (folder / "model_index.json").is_file() or not (folder / "config.json").is_file():
        return False
    return read_json(folder / "config.json").get("model_type") in components.MODEL_TYPES


def open_assembled(folder: Path, architecture: Architecture, lora: Path | None = None) -> Checkpoint:
    """An assembled model, with the preference adapter ``lora``, or the one in its own folder ``lora``, or none.

    Raises:
        WeightsError: files or tensors are missing, left over, damaged, or of a wrong shape or type.
    """
    name = str(folder)
    config = read_json(folder / "config.json")
    language = components.language_model_arguments(name, config)
    source = SafetensorsFolder(folder)
    keys = layout.split(source.infos)
    empty = [prefix for part, prefix in layout.PREFIXES.items() if not keys[part]]
    empty += [f"model.{part}." for part in layout.CONNECTORS if not any(k.startswith(part) for k in keys["connectors"])]
    if empty:
        raise WeightsError(f"{folder}: there are no weights under {', '.join(empty)}")

    def infos(part: str) -> dict[str, Any]:
        return components.infos_of(source.infos, keys[part])

    tokenizer = components.empty_image_tokenizer(name, infos("image_tokenizer"), architecture.image_tokenizer)
    transformer = components.empty_transformer(name, infos("transformer"), architecture.transformer)
    modules: dict[str, nn.Module] = {
        "image_tokenizer": tokenizer,
        "language_model": components.empty(name, "language_model", language),
        "connectors": components.empty_connectors(name, language["hidden_size"], transformer),
        "transformer": transformer,
        "autoencoder": components.empty(name, "autoencoder", architecture.autoencoder),
    }
    keys["image_tokenizer"] = layout.drop_unneeded(keys["image_tokenizer"], tokenizer)
    held, keys["connectors"] = keys["connectors"], layout.share_norm(keys["connectors"])
    layout.check(source, {part: (module, keys[part]) for part, module in modules.items()})
    notes = []
    if unused := sum(key.startswith(layout.TARGET_ENCODER) for key in source.infos):
        notes.append(f"{folder}: {unused} tensors under fixed_vae are left out: only training used them")
    if len(held) == len(keys["connectors"]) and layout.norms_differ(source, held):
        notes.append(f"{folder}: the two connectors' norms differ; each connector uses its own")
    text_tokenizer = load_text_tokenizer(
        folder, config, codes=tokenizer.config.codebook_size, rows=language["vocab_size"]
    )
    if lora is None and (folder / ADAPTER_FOLDER).exists():
        lora = folder / ADAPTER_FOLDER
    if lora is not None:
        lora = adapter_folder(lora)
        adapter.check(lora, transformer)
    return Checkpoint(
        parts={part: Part(module, keys[part], source) for part, module in modules.items()},
        face_size=architecture.face_size,
        text_tokenizer=text_tokenizer,
        adapter=lora,
        notes=notes,
    )


def open_ta_tok(file: Path, architecture: Architecture) -> Checkpoint:
    """``ta_tok.pth``, a pickle: only tensors and plain values are read from it.

    Raises:
        WeightsError: it holds code, is damaged, or is not TA-Tok's.
    """
    source = PickledTensors(file, ("model", "sd"))
    told: Any = source.beside.get("args")
    try:
        arguments = _tokenizer_arguments(told, architecture.image_tokenizer)
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{file}: the entry model.args is not TA-Tok's ({error!r})") from error
    keys = {key: key for key in source.infos}
    tokenizer = components.empty_image_tokenizer(str(file), source.infos, arguments)
    if tokenizer.num_tokens != told["bottleneck_token_num"]:
        raise WeightsError(
            f"{file}: the file tells of {told['bottleneck_token_num']} tokens, the encoder has {tokenizer.num_tokens}"
        )
    keys = layout.drop_unneeded(keys, tokenizer)
    layout.check(source, {"image_tokenizer": (tokenizer, keys)})
    return Checkpoint(parts={"image_tokenizer": Part(tokenizer, keys, source)}, face_size=architecture.face_size)


def _tokenizer_arguments(told: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `TATok`: those of the architecture, with what the file's own ``args`` say."""
    bottleneck = told["bottleneck"]["args"]
    regularizer = bottleneck["regularizer"]["args"]
    return {
        **arguments,
        "image_size": told["input_size"],
        "select_layer": told["select_layer_id"],
        "codebook_size": regularizer["codebook_size"],
        "l2_normalized": regularizer["l2_normalized"],
    }


def open_sana(folder: Path) -> Checkpoint:
    """A SANA pipeline folder: its denoiser and its autoencoder; scheduler and text encoder are not used.

    Raises:
        WeightsError: as `open_assembled`.
    """
    arguments = {part: _arguments(folder / part / "config.json") for part in ("transformer", "vae")}
    sources = {part: SafetensorsFolder(folder / part) for part in arguments}
    transformer = components.empty_transformer(str(folder), sources["transformer"].infos, arguments["transformer"])
    modules = {"transformer": transformer, "vae": components.empty(str(folder), "autoencoder", arguments["vae"])}
    parts = {}
    for part, module in modules.items():
        keys = {key: key for key in sources[part].infos}
        layout.check(sources[part], {part: (module, keys)})
        parts["autoencoder" if part == "vae" else part] = Part(module, keys, sources[part])
    return Checkpoint(parts=parts, face_size=load_preset(components.LAYOUT).face_size)


def _arguments(file: Path) -> dict[str, Any]:
    return {name: value for name, value in read_json(file).items() if not name.startswith("_")}


def open_source(path: Path, architecture: Architecture, lora: Path | None = None) -> Checkpoint:
    """Any of the published files; see `open_assembled`, `open_ta_tok` and `open_sana`.

    Raises:
        WeightsError: it is none of them, or not whole.
        InvalidInputError: an adapter is named for something else than an assembled model.
    """
    if path.is_dir() and is_assembled(path):
        return open_assembled(path, architecture, lora)
    if lora is not None:
        raise InvalidInputError(f"{path} is not an assembled model, so the adapter {lora} has nothing to change")
    if path.is_file():
        return open_ta_tok(path, architecture)
    if (path / "transformer" / "config.json").is_file() and (path / "vae" / "config.json").is_file():
        return open_sana(path)
    raise WeightsError(
        f"{path}: neither an assembled model (config.json of type {' or '.join(components.MODEL_TYPES)}), "
        "nor a TA-Tok file, nor a SANA folder"
    )


def load_ta_tok(
    file: Path | str, *, architecture: Architecture | None = None, dtype: torch.dtype = torch.float32
) -> TATok:
    """The image tokenizer of ``ta_tok.pth`` alone."""
    part = open_ta_tok(Path(file), architecture or Architecture.paper()).parts["image_tokenizer"]
    return part.filled(dtype)  # type: ignore[return-value]


def load_sana(
    folder: Path | str, *, dtype: torch.dtype = torch.float32
) -> tuple[SanaTransformer2DModel, AutoencoderDC]:
    """The denoiser and the autoencoder of a SANA folder."""
    parts = open_sana(Path(folder)).parts
    return parts["transformer"].filled(dtype), parts["autoencoder"].filled(dtype)  # type: ignore[return-value]


def load_arguments(
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    lora: Path | str | None = None,
    architecture: Architecture | None = None,
    preference: bool = True,
) -> dict[str, Any]:
    """What a pipeline is made of, by the names of its arguments, from an assembled model.

    Args:
        folder: in the published layout.
        dtype: of the weights in memory; float32 if None, as with every pipeline.
        lora: folder of the preference adapter; None takes the one in the folder's ``lora``, if there is one.
        architecture: what the files do not say; the paper's if None.
        preference: False leaves the adapter out: the base model.

    Raises:
        WeightsError: see `open_assembled`; also when the adapter is missing or does not fit.
    """
    checkpoint = open_assembled(folder, architecture or Architecture.paper(), None if lora is None else Path(lora))
    for note in checkpoint.notes:
        warnings.warn(note, stacklevel=2)
    arguments = pipeline_arguments(
        checkpoint, {name: part.filled(dtype or torch.float32) for name, part in checkpoint.parts.items()}
    )
    if preference and checkpoint.adapter is not None:
        align(arguments["transformer"], checkpoint.adapter)
    return arguments


def align(transformer: SanaTransformer2DModel, folder: Path) -> None:
    """Put a preference adapter on the denoiser, in the denoiser's precision. Raises WeightsError."""
    load_adapter(transformer, folder, ADAPTER_NAME)
    for parameter in adapter_tensors(transformer, ADAPTER_NAME).values():
        parameter.data = parameter.data.to(transformer.dtype)  # PEFT makes them in float32


def pipeline_arguments(checkpoint: Checkpoint, modules: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a pipeline of these components; the tuned encoder is the autoencoder's own."""
    config = {**load_preset(components.LAYOUT).pipeline_config(), "face_size": checkpoint.face_size}
    return {**modules, "text_tokenizer": checkpoint.text_tokenizer, "lq_encoder": None, **config}
