"""The one place where components are made: new, loaded, empty or handed in; their classes are found by name."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from torch import nn

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.models.semantic.instruction import SPECIALS, train_text_tokenizer
from prefrestore.models.semantic.integrator import initialise_language_model
from prefrestore.models.semantic.ta_tok import TATok
from prefrestore.models.semantic.tokenizer import SemanticTokenizer
from prefrestore.models.texture.autoencoder import ResidualAutoencoder
from prefrestore.models.texture.conditioning import Connectors
from prefrestore.models.texture.input_skip import InputSkip
from prefrestore.models.texture.last_octave import LastOctave
from prefrestore.models.texture.lq_encoder import LatentEncoder
from prefrestore.models.texture.steering import Steering
from prefrestore.pipeline.presets import Preset

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_OWN = (SemanticTokenizer, TATok, Connectors, ResidualAutoencoder, LatentEncoder, InputSkip, LastOctave, Steering)
COMPONENTS = {component.__name__: component for component in _OWN}
"""This package's own classes by the names that presets and pipeline folders hold."""

ORDER = (
    "image_tokenizer",
    "text_tokenizer",
    "language_model",
    "autoencoder",
    "lq_encoder",
    "input_skip",
    "transformer",
    "connectors",
    "last_octave",
    "steering",
)
"""In which new components draw their weights from one seed; another order would give other weights."""

Source: TypeAlias = "Literal['new', 'empty'] | Path | nn.Module | PreTrainedTokenizerFast"
"""Where a component comes from: ``new`` with random weights, ``empty`` without any (parameters on torch's meta device,
buffers as they are), the folder that holds it, or itself, ready or half-trained."""

_WORDS = ("A man with grey hair looks at the camera.", "A young woman with dark hair smiles in front of a wall.")


def find_components(config: Any) -> Any:
    """The configuration of a pipeline folder, its entries ``[module, class]`` naming today's modules.

    A folder names the module in which a class lived when it was saved, and modules move. ``config`` is what diffusers'
    ``load_config`` returns: the entries, or a tuple that begins with them. Changed in place.
    """
    for value in (config[0] if isinstance(config, tuple) else config).values():
        own = isinstance(value, (list, tuple)) and str(value[0]).startswith("prefrestore.")
        if own and value[1] in COMPONENTS:
            value[0] = COMPONENTS[value[1]].__module__
    return config


def component_class(name: str) -> Any:
    """This package's class of that name, or diffusers', or transformers'. Raises InvalidInputError."""
    libraries = (getattr(library, name, None) for library in (diffusers, transformers))
    found = COMPONENTS.get(name) or next((each for each in libraries if isinstance(each, type)), None)
    if found is None:
        raise InvalidInputError(f"there is no component class '{name}'")
    return found


def build_components(
    preset: Preset,
    sources: Mapping[str, Source],
    *,
    trained: Collection[str] = (),
    seed: int = 0,
    captions: Iterable[str] = _WORDS,
    dtype: torch.dtype | None = None,
) -> dict[str, Any]:
    """Make components by the pipeline's names; every other way to make one leads here.

    New weights depend on the preset, the seed, and which components are new; the global generator, from which layers
    draw them, is put back as it was.

    Args:
        preset: names the classes and arguments of those that are new or empty.
        sources: of the components that are wanted.
        trained: those that are in training mode and keep their parameters as they are; the others are frozen.
        seed: of the new weights.
        captions: what a new text tokenizer learns from.
        dtype: of the weights in memory; None is float32. What is handed in keeps its own.

    Raises:
        InvalidInputError: the preset has no such component, or its class or arguments are wrong.
        WeightsError: a folder's component cannot be read.
    """
    parts: dict[str, Any] = {}
    for name, source in sources.items():
        if isinstance(source, Path):
            parts[name] = _loaded(preset, name, source, dtype or torch.float32)
        elif not isinstance(source, str):
            parts[name] = source
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name in sorted(sources, key=ORDER.index):
            if sources[name] == "new":
                parts[name] = _made(preset, name, parts, seed=seed, captions=captions)
            elif sources[name] == "empty":
                with init_empty_weights():
                    part = parts[name] = _made(preset, name, parts, seed=seed, captions=captions)
                if name == "language_model":
                    part.tie_weights()  # the embeddings and the head were made empty one by one
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            if isinstance(sources[name], str) and dtype is not None:
                nn.Module.to(part, dtype)  # diffusers' own would warn of types that these classes do not have
            part.train() if name in trained else part.eval().requires_grad_(False)
    return parts


def build_component(preset: Preset, name: str, source: Source = "new", **options: Any) -> Any:
    """One component alone; ``options`` as in `build_components`."""
    return build_components(preset, {name: source}, **options)[name]


def _made(preset: Preset, name: str, parts: Mapping[str, Any], *, seed: int, captions: Iterable[str]) -> Any:
    """A component of the preset's class; ``parts`` are those that are there already."""
    config = preset.component(name)
    kind, arguments = component_class(config.class_name), config.arguments
    try:
        if name == "text_tokenizer":
            return train_text_tokenizer(captions, codebook_size=_codes(preset, parts), **arguments)
        if name == "language_model":
            return _language_model(preset, kind, arguments, parts, seed)
        return kind(**arguments)
    except Exception as error:  # every library has its own kinds
        raise InvalidInputError(f"the preset '{preset.name}' does not describe a {name} ({error})") from error


def _codes(preset: Preset, parts: Mapping[str, Any]) -> int:
    tokenizer = parts.get("image_tokenizer")
    known = preset.component("image_tokenizer").arguments if tokenizer is None else tokenizer.config
    return int(known["codebook_size"])


def _language_model(
    preset: Preset, kind: Any, arguments: Mapping[str, Any], parts: Mapping[str, Any], seed: int
) -> Any:
    if "text_tokenizer" in parts:
        rows = len(parts["text_tokenizer"])
    else:
        text = preset.component("text_tokenizer").arguments["text_vocabulary"]
        rows = text + len(SPECIALS) + _codes(preset, parts)
    model = kind(kind.config_class(**{"vocab_size": rows, **arguments}))
    if not next(model.parameters()).is_meta:
        initialise_language_model(model, torch.Generator().manual_seed(seed))
    return model


def _loaded(preset: Preset, name: str, folder: Path, dtype: torch.dtype) -> Any:
    """The component in a folder, which names its own class, in diffusers' way or in transformers'."""
    if not folder.is_dir():
        raise WeightsError(f"{folder}: there is no such folder of a component")
    try:
        if name == "text_tokenizer":
            return component_class(preset.component(name).class_name).from_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        kind = component_class(config.get("_class_name") or config["architectures"][0])
        word = "dtype" if issubclass(kind, transformers.PreTrainedModel) else "torch_dtype"
        return kind.from_pretrained(folder, **{word: dtype})
    except Exception as error:  # every library has its own kinds
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{folder}: this component cannot be read ({told})") from error
