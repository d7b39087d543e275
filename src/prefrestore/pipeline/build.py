"""From a preset to a pipeline: put together of components from anywhere, or whole from a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from prefrestore.errors import InvalidInputError
from prefrestore.files.weights import folder_hashes, verify
from prefrestore.models.adapter import adapter_folder, load_adapter
from prefrestore.pipeline.components import ORDER, Source, build_components
from prefrestore.pipeline.pipeline import PrefRestorePipeline
from prefrestore.pipeline.presets import Preset, load_preset, weights_folder

ADAPTER = "preference"
"""Where a pipeline folder keeps its preference adapter."""


def build_pipeline(
    preset: Preset, sources: Mapping[str, Source | None] | None = None, **options: Any
) -> PrefRestorePipeline:
    """A pipeline of the preset, each of its components from where ``sources`` says, and new where that says nothing.

    Args:
        sources: see `prefrestore.pipeline.components.build_components`; None leaves an optional component out.
        options: ``trained``, ``seed``, ``captions``, ``dtype`` of the same function.
    """
    chosen: dict[str, Source | None] = {**dict.fromkeys(preset.components, "new"), **(sources or {})}
    parts = build_components(preset, {name: source for name, source in chosen.items() if source is not None}, **options)
    components: dict[str, Any] = {name: parts.get(name) for name in ORDER}
    return PrefRestorePipeline(**components, **preset.pipeline_config())


def load_preset_pipeline(
    name: str = "compact",
    *,
    folder: Path | str | None = None,
    dtype: torch.dtype = torch.float32,
    preference: bool | Path = True,
    face_size: int | Literal["core"] | None = None,
) -> PrefRestorePipeline:
    """The pipeline of a preset, with the weights that it names: ``compact`` has bundled ones, ``tiny`` random ones.

    With its preference adapter, where the folder has one (``preference/``, covered by the recorded hashes).

    Args:
        name: a preset.
        folder: a pipeline folder in place of the bundled weights; its hashes are checked when it records them.
        dtype: of the weights in memory; the files are half precision.
        preference: False leaves the adapter out: the base model. A path is the folder of another adapter.
        face_size: side of the faces, px: None for what the weights give; ``core`` or that size, which is faster,
            leaves the last octave out.

    Raises:
        InvalidInputError: no such preset, or another size of faces than its weights can give.
        WeightsError: the weights are missing, or differ from their recorded hashes.
    """
    preset = load_preset(name)
    other = preference if isinstance(preference, Path) else None
    hashes: dict[str, str] = {}
    path = weights_folder(name, None if folder is None else Path(folder))
    if path is None:
        pipeline = build_pipeline(preset, dtype=dtype)
    else:
        hashes = verify(path)
        pipeline = PrefRestorePipeline.from_pretrained(path, dtype=dtype, local_files_only=True, preference=False)
        if preference is True and (path / ADAPTER).is_dir():
            other = path / ADAPTER
    if face_size not in (None, pipeline.face_size):
        core = int(pipeline.config.face_size)
        if face_size not in ("core", core):
            sizes = " or ".join(str(size) for size in sorted({core, pipeline.face_size}))
            raise InvalidInputError(f"these weights restore faces of {sizes} px, not {face_size}")
        pipeline.register_modules(last_octave=None)
        hashes = {key: value for key, value in hashes.items() if not key.startswith("last_octave/")}
    hashes = {key: value for key, value in hashes.items() if not key.startswith(f"{ADAPTER}/")}
    if other is not None:
        other = adapter_folder(other)
        load_adapter(pipeline.transformer, other)
        torch.nn.Module.to(pipeline.transformer, dtype)  # diffusers' own tells users of an empty list
        hashes |= {f"{ADAPTER}/{key}": value for key, value in folder_hashes(other).items()}
    pipeline.weight_hashes = {key: value for key, value in hashes.items() if key.endswith(".safetensors")}
    return pipeline
