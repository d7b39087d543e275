"""The last step of training: one pipeline folder in half precision, its hashes, and what halving cost."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from prefrestore.errors import InvalidInputError
from prefrestore.files.weights import HASH_FILE, folder_hashes, write_hashes
from prefrestore.training import fidelity
from prefrestore.training.components import RUN_FILE, component_folder
from prefrestore.training.pairs import held_out_pairs

if TYPE_CHECKING:
    from prefrestore.pipeline.pipeline import PrefRestorePipeline


@dataclass(frozen=True, kw_only=True)
class Config:
    """``prefrestore train assemble``.

    Args:
        data: folders of aligned faces, whose validation faces measure the loss from halving.
        output_dir: the working folder that holds the finished components.
        destination: the pipeline folder to write; an earlier pipeline folder there is replaced as a whole, anything
            else is refused.
        faces: how many validation faces are restored in both precisions.
    """

    data: tuple[Path, ...]
    output_dir: Path
    destination: Path
    preset: str = "compact"
    faces: int = 16
    seed: int = 0


def run(config: Config, *, log: Callable[[str], None] = print) -> None:
    """Write ``destination`` and report the sizes and the difference that half precision makes to the pictures.

    Raises:
        InvalidInputError: ``destination`` is there, and holds something else than an earlier export of this command.
    """
    from prefrestore.pipeline.build import load_preset_pipeline
    from prefrestore.pipeline.components import build_component
    from prefrestore.pipeline.presets import load_preset

    check_replaceable(config.destination)
    stage = fidelity.Config(
        data=config.data, output_dir=config.output_dir, preset=config.preset, start_from=config.output_dir
    )
    pipeline = fidelity.load_working_pipeline(stage)
    for name in ("last_octave", "steering"):
        if (config.output_dir / name).is_dir():
            folder = component_folder(config.output_dir, name)
            pipeline.register_modules(**{name: build_component(load_preset(config.preset), name, folder)})
    lq, _, _ = held_out_pairs(config.data, pipeline.face_size, config.faces, stage.degradation, config.seed)
    full = restore(pipeline, lq, config.seed)

    write_destination(config.destination, lambda folder: _write(pipeline, config, folder))

    # The base in both precisions: the adapter's file is half precision already.
    half = restore(load_preset_pipeline(config.preset, folder=config.destination, preference=False), lq, config.seed)
    difference = np.abs(full - half) * 255
    sizes = {file: file.stat().st_size for file in sorted(config.destination.rglob("*")) if file.is_file()}
    for file, size in sizes.items():
        if size > 100_000:
            log(f"{size / 1e6:7.2f} MB  {file.relative_to(config.destination)}")
    log(f"{sum(sizes.values()) / 1e6:7.2f} MB  together")
    mean, most = difference.mean(), difference.max()
    log(f"half against full precision on {len(lq)} faces: mean {mean:.4f}/255, max {most:.2f}/255")


def _write(pipeline: PrefRestorePipeline, config: Config, folder: Path) -> None:
    pipeline.to(torch.float16).save_pretrained(folder)
    forget_origins(folder)
    adapter = config.output_dir / "preference"
    if adapter.is_dir():
        shutil.copytree(adapter, folder / "preference", ignore=shutil.ignore_patterns(RUN_FILE))
    write_hashes(folder)


def write_destination(destination: Path, write: Callable[[Path], object]) -> None:
    """Put what ``write`` makes in the place of ``destination``, in one move; raises as `check_replaceable`."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    # A folder of our own making: a name that is made up here could be one of the user's.
    scratch = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    try:
        write(scratch / "new")
        check_replaceable(destination)
        if destination.exists():
            os.replace(destination, scratch / "old")
        os.replace(scratch / "new", destination)
    finally:
        if (scratch / "old").exists() and not destination.exists():
            os.replace(scratch / "old", destination)
        shutil.rmtree(scratch)


def check_replaceable(folder: Path) -> None:
    """Pass a path that is free, an empty folder, or an earlier export that nobody has added to.

    Raises:
        InvalidInputError: anything else lies there; replacing it would delete what is the user's.
    """
    if not os.path.lexists(folder):
        return
    advice = "name a new folder as --destination, nothing was written"
    if folder.is_symlink() or not folder.is_dir():
        raise InvalidInputError(f"{folder} is no folder that this command wrote: {advice}")
    if not any(folder.iterdir()):
        return
    try:
        record = json.loads((folder / HASH_FILE).read_text())
    except (OSError, ValueError):
        record = None
    if not isinstance(record, dict) or not (folder / "model_index.json").is_file():
        raise InvalidInputError(f"{folder} is no earlier export of this command: {advice}")
    changed = sorted(name for name, value in folder_hashes(folder).items() if record.get(name) != value)
    if changed:
        raise InvalidInputError(f"{folder / changed[0]} is not of an earlier export: {advice}")


def forget_origins(folder: Path) -> None:
    """Take out of every component's configuration the path that it was loaded from: it means nothing elsewhere."""
    for file in folder.glob("*/config.json"):
        values = json.loads(file.read_text())
        values.pop("_name_or_path", None)
        file.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def restore(pipeline: object, faces: np.ndarray, seed: int) -> np.ndarray:
    """Faces (N,H,W,3) uint8 -> restored (N,H,W,3) float in [0,1], face k from a generator of seed + k."""
    generators = [torch.Generator().manual_seed(seed + k) for k in range(len(faces))]
    return pipeline(list(faces), generator=generators, output_type="np").images  # type: ignore[operator]
