"""Components of several runs, averaged: weights that were trained on from the same ones usually lie in one basin, and
their mean restores better than each (model soups, arXiv 2203.05482, section 3.1).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.files.fingerprints import file_hash
from prefrestore.training.components import RUN_FILE, component_folder, write_components


@dataclass(frozen=True, kw_only=True)
class Config:
    """``prefrestore train average``.

    Args:
        sources: working or pipeline folders, two or more, that hold the components; each counts alike.
        components: names of those that are averaged, such as ``lq_encoder``.
        output_dir: the working folder that they are written to.
    """

    sources: tuple[Path, ...]
    components: tuple[str, ...]
    output_dir: Path


def mean_of(files: list[Path]) -> dict[str, Tensor]:
    """The mean of files of the same tensors, float32; what is no floating-point number is the first file's.

    Raises:
        WeightsError: they hold other tensors, or of other shapes.
    """
    first, *others = (load_file(path) for path in files)
    for path, held in zip(files[1:], others, strict=True):
        if {k: v.shape for k, v in held.items()} != {k: v.shape for k, v in first.items()}:
            raise WeightsError(f"{path} does not hold the same tensors as {files[0]}: they cannot be averaged")
    return {
        name: torch.stack([value.float(), *(held[name].float() for held in others)]).mean(0)
        if value.is_floating_point()
        else value
        for name, value in first.items()
    }


def run(config: Config, *, log: Callable[[str], None] = print) -> None:
    """Write the mean of each component, with the first source's configuration.

    Raises:
        InvalidInputError: fewer than two sources, or no component.
        WeightsError: one is missing, or is of another shape.
    """
    if len(config.sources) < 2 or not config.components:
        raise InvalidInputError("an average needs --sources twice or more and --components once or more")
    folders = {name: [component_folder(each, name) for each in config.sources] for name in config.components}
    weights = {name: _weight_files(held) for name, held in folders.items()}
    hashes = {name: [file_hash(path) for path in files] for name, files in weights.items()}

    def writer(name: str) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            for path in folders[name][0].iterdir():
                if path.suffix == ".json" and path.name != RUN_FILE:
                    shutil.copy(path, folder / path.name)
            save_file(mean_of(weights[name]), folder / weights[name][0].name, metadata={"format": "pt"})

        return write

    parts = {name: writer(name) for name in config.components}
    write_components(config.output_dir, parts, {"stage": "average", "sources": hashes}, steps=0)
    log(f"{', '.join(config.components)}: the mean of {len(config.sources)}")


def _weight_files(folders: list[Path]) -> list[Path]:
    found = [sorted(folder.glob("*.safetensors")) for folder in folders]
    for folder, files in zip(folders, found, strict=True):
        if len(files) != 1:
            raise WeightsError(f"{folder} holds {len(files)} safetensors files; one is averaged")
    return [files[0] for files in found]
