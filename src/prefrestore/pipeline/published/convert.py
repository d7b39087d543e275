"""Published files -> a pipeline folder of this package, one shard in memory at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from prefrestore.errors import InvalidInputError
from prefrestore.files.weights import write_hashes
from prefrestore.models.adapter import CONFIG, WEIGHTS
from prefrestore.pipeline.pipeline import PrefRestorePipeline
from prefrestore.pipeline.published.components import Architecture
from prefrestore.pipeline.published.loading import ADAPTER_NAME, Checkpoint, Part, open_source, pipeline_arguments

SHARD_BYTES = 2 * 10**9


def convert(
    source: Path,
    destination: Path,
    *,
    lora: Path | None = None,
    architecture: Architecture | None = None,
    shard_bytes: int = SHARD_BYTES,
    log: Callable[[str], None] = print,
) -> None:
    """Write what ``source`` holds as a pipeline folder (or, of a tokenizer or SANA alone, its components) and hashes.

    Args:
        source: an assembled model's folder, ``ta_tok.pth``, or a SANA folder.
        destination: a folder that is not there yet; it appears when it is whole.
        lora: the preference adapter's folder; one in ``source/lora`` is taken without being named.
        architecture: what the files do not say; the paper's if None.
        shard_bytes: largest size of a shard, unless one tensor is larger.

    Raises:
        WeightsError: see `prefrestore.pipeline.published.loading.open_source`.
        InvalidInputError: the destination exists.
    """
    if destination.exists():
        raise InvalidInputError(f"{destination} exists: name a folder that is not there yet")
    checkpoint = open_source(source, architecture or Architecture.paper(), lora)
    beside = destination.with_name(destination.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        _write(checkpoint, beside, shard_bytes, log)
        write_hashes(beside)
        beside.rename(destination)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    for note in checkpoint.notes:
        log(f"note: {note}")
    size = sum(file.stat().st_size for file in destination.rglob("*") if file.is_file())
    log(f"{destination}: {size / 1e9:.2f} GB, hashes recorded")


def _write(checkpoint: Checkpoint, folder: Path, shard_bytes: int, log: Callable[[str], None]) -> None:
    folder.mkdir(parents=True)
    if checkpoint.text_tokenizer is not None:
        modules = {name: part.module for name, part in checkpoint.parts.items()}
        PrefRestorePipeline(**pipeline_arguments(checkpoint, modules)).save_config(folder)
        checkpoint.text_tokenizer.save_pretrained(folder / "text_tokenizer")
    for name, part in checkpoint.parts.items():
        inside = folder / name
        inside.mkdir()
        if hasattr(part.module, "save_config"):  # diffusers
            part.module.save_config(inside)
            stem = "diffusion_pytorch_model"
        else:  # transformers
            part.module.config.architectures = [type(part.module).__name__]
            part.module.config.save_pretrained(inside)
            stem = "model"
        written = write_shards(part, inside, stem, shard_bytes)
        log(f"{name}: {len(part.keys)} tensors, {written / 1e9:.2f} GB")
    if checkpoint.adapter is not None:
        (folder / ADAPTER_NAME).mkdir()
        for file in (CONFIG, WEIGHTS):
            shutil.copyfile(checkpoint.adapter / file, folder / ADAPTER_NAME / file)
        log(f"{ADAPTER_NAME}: the adapter of {checkpoint.adapter}")


def write_shards(part: Part, folder: Path, stem: str, shard_bytes: int) -> int:
    """Write a component's tensors in the order in which they lie in the source; returns their size in bytes."""
    owners: dict[str, list[str]] = {}
    for name, key in part.keys.items():
        owners.setdefault(key, []).append(name)
    shards: list[list[str]] = [[]]
    size = total = 0
    for key in part.source.in_file_order(owners):
        weight = part.source.infos[key].bytes * len(owners[key])
        if shards[-1] and size + weight > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(key)
        size, total = size + weight, total + weight
    weight_map = {}
    for index, keys in enumerate(shards, 1):
        numbered = f"-{index:05}-of-{len(shards):05}" if len(shards) > 1 else ""
        file = folder / f"{stem}{numbered}.safetensors"
        tensors = dict(_named(part, owners, keys))
        save_file(tensors, file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(tensors, file.name))
        del tensors
    if len(shards) > 1:
        index_of: dict[str, Any] = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index_of, indent=2, sort_keys=True) + "\n")
    return total


def _named(part: Part, owners: dict[str, list[str]], keys: list[str]) -> Iterator[tuple[str, Tensor]]:
    for key, tensor in part.source.read(keys):
        for place, name in enumerate(owners[key]):
            yield name, tensor if place == 0 else tensor.clone()
