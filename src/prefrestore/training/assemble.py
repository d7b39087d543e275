"""The last step of training: one pipeline folder in half precision, its hashes, and what halving cost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from prefrestore.files.weights import write_hashes
from prefrestore.training import fidelity
from prefrestore.training.pairs import degraded_batch, load_validation


@dataclass(frozen=True, kw_only=True)
class Config:
    """``prefrestore train assemble``.

    Args:
        data: folders of aligned faces, whose validation faces measure the loss from halving.
        output_dir: the working folder that holds the finished components.
        destination: the pipeline folder to write; replaced as a whole if it exists.
        faces: how many validation faces are restored in both precisions.
    """

    data: tuple[Path, ...]
    output_dir: Path
    destination: Path
    preset: str = "compact"
    faces: int = 16
    seed: int = 0


def run(config: Config, *, log: Callable[[str], None] = print) -> None:
    """Write ``destination`` and report the sizes and the difference that half precision makes to the pictures."""
    from prefrestore.pipeline.build import load_preset_pipeline

    stage = fidelity.Config(
        data=config.data, output_dir=config.output_dir, preset=config.preset, start_from=config.output_dir
    )
    pipeline = fidelity.load_working_pipeline(stage)
    validation = load_validation(config.data, pipeline.face_size)
    held_out = np.asarray(validation.images[:: max(1, len(validation) // config.faces)][: config.faces])
    lq, _ = degraded_batch(held_out, stage.degradation, np.random.default_rng(config.seed), mirror=False)
    full = restore(pipeline, lq, config.seed)

    beside = config.destination.with_name(config.destination.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(beside)
    forget_origins(beside)
    adapter = config.output_dir / "preference"
    if adapter.is_dir():
        shutil.copytree(adapter, beside / "preference")
    write_hashes(beside)
    if config.destination.exists():
        shutil.rmtree(config.destination)
    os.replace(beside, config.destination)

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
