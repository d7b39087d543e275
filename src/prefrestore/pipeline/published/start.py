"""Where training on the published classes begins: an assembled model, a pipeline folder, or TA-Tok and SANA."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from prefrestore.errors import WeightsError
from prefrestore.files.weights import HASH_FILE, verify
from prefrestore.pipeline.build import build_pipeline
from prefrestore.pipeline.pipeline import PrefRestorePipeline
from prefrestore.pipeline.presets import Preset
from prefrestore.pipeline.published import layout
from prefrestore.pipeline.published.components import Architecture
from prefrestore.pipeline.published.loading import is_assembled, load_arguments, load_sana, load_ta_tok
from prefrestore.pipeline.published.tensors import PickledTensors, SafetensorsFolder

if TYPE_CHECKING:
    from prefrestore.models.semantic.ta_tok import TATok

TA_TOK = "ta_tok.pth"
LANGUAGE = ("language_model", "text_tokenizer")


def start_pipeline(model: Path, preset: Preset, *, seed: int = 0, captions: Iterable[str] = ()) -> PrefRestorePipeline:
    """The pipeline that training goes on from, in float32, frozen and without a preference adapter.

    Args:
        model: an assembled model's folder; or a pipeline folder, whose recorded hashes are checked; or a folder with
            ``ta_tok.pth`` and a SANA folder (itself, or one below it). The last may hold ``language_model/`` and
            ``text_tokenizer/`` with the image tokens in the vocabulary; without them both are new, as the connectors
            are.
        preset: of the published classes; it says what the files do not.
        seed, captions: of what is new, see `prefrestore.pipeline.components.build_components`.

    Raises:
        WeightsError: the folder is none of these, or not whole.
    """
    pipeline = _found(model, preset, seed=seed, captions=captions)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):  # a pipeline folder's come as they would be trained on as a whole
            part.eval().requires_grad_(False)
    return pipeline


def _found(model: Path, preset: Preset, *, seed: int, captions: Iterable[str]) -> PrefRestorePipeline:
    architecture = Architecture.of(preset)
    if not model.is_dir():
        raise WeightsError(f"{model}: there is no such folder to train from")
    if is_assembled(model):
        return PrefRestorePipeline(**load_arguments(model, architecture=architecture, preference=False))
    if (model / "model_index.json").is_file():
        if (model / HASH_FILE).is_file():
            verify(model)
        return PrefRestorePipeline.from_pretrained(model, local_files_only=True, preference=False)
    sana = next((f for f in (model, *sorted(model.iterdir())) if (f / "transformer" / "config.json").is_file()), None)
    if not (model / TA_TOK).is_file() or sana is None:
        raise WeightsError(
            f"{model}: neither an assembled model, nor a pipeline folder, nor {TA_TOK} beside a SANA folder"
        )
    transformer, autoencoder = load_sana(sana)
    parts: dict[str, Any] = {"transformer": transformer, "autoencoder": autoencoder}
    parts["image_tokenizer"] = load_ta_tok(model / TA_TOK, architecture=architecture)
    parts |= {name: model / name for name in LANGUAGE if (model / name).is_dir()}
    texts = {"captions": captions} if captions else {}
    return build_pipeline(preset, parts, seed=seed, **texts)


def unread_tensors(model: Path, tokenizer: TATok) -> dict[str, Tensor]:
    """What the image tokenizer's file holds and restoring does not need, by the assembled model's keys.

    So that a trained model can be written with all that the published loader looks for. Empty where ``model`` is a
    pipeline folder, which does not hold it.
    """
    prefix = layout.PREFIXES["image_tokenizer"]
    source: SafetensorsFolder | PickledTensors
    if is_assembled(model):
        source = SafetensorsFolder(model)
        names = {key.removeprefix(prefix): key for key in source.infos if key.startswith(prefix)}
    elif (model / TA_TOK).is_file():
        source = PickledTensors(model / TA_TOK, ("model", "sd"))
        names = {key: key for key in source.infos}
    else:
        return {}
    read = layout.drop_unneeded(names, tokenizer)
    # The teacher is training's own, and large; the published loader drops it, too.
    unread = {key: name for name, key in names.items() if name not in read and not name.startswith("teacher.")}
    return {prefix + unread[key]: tensor for key, tensor in source.read(unread)}
