"""Every stage in order, from folders of faces to a finished pipeline folder: the recipe of the shipped weights.

Each stage resumes from its own checkpoint, and a stage whose component is finished is passed over, so the command may
be stopped and given again. On the published classes the stages are steps 1 and 2, each from the whole model that the
one before wrote.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefrestore.data.identity import face_identity
from prefrestore.errors import InvalidInputError
from prefrestore.files.fingerprints import FORMAT, first_differences
from prefrestore.pipeline.presets import load_preset
from prefrestore.pipeline.published.components import is_published
from prefrestore.training import assemble, autoencoder, encoder, fidelity, semantic, tokenizer
from prefrestore.training.components import RUN_FILE, is_finished, read_record
from prefrestore.training.identity import run_settings
from prefrestore.training.pairs import load_training_faces
from prefrestore.training.processes import is_main_process, main_process_first
from prefrestore.training.published import ASSEMBLED, PIPELINE
from prefrestore.training.stage import StageConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """``prefrestore train all``.

    Args:
        data: folders of aligned faces (or the layout of the project's data card); none is enough when faces are
            drawn.
        output_dir: the working folder: components, checkpoints, grids, caches.
        destination: the pipeline folder to write at the end.
        model: for presets of the published classes, and only for them: the folder to begin with (docs/paper-scale.md).
        synthetic_faces: how many faces to draw first into ``output_dir/synthetic`` (extra ``synth``); 0 draws none.
        steps_scale: multiplies every stage's number of steps; 1.0 is the recipe of the shipped weights, and with
            ``model`` 20,000 steps each, which nobody has tried.
    """

    output_dir: Path
    destination: Path
    data: tuple[Path, ...] = ()
    model: Path | None = None
    preset: str = "compact"
    synthetic_faces: int = 0
    steps_scale: float = 1.0
    seed: int = 0


PUBLISHED: dict[str, dict[str, Any]] = {
    name: {"steps": 20_000, "batch_size": 8, "degradation": "paper", "gradient_checkpointing": True} | rate
    for name, rate in (("semantic", {"learning_rate": 1e-4}), ("fidelity", {"learning_rate": 2e-5}))
}
"""What the two steps on the published classes take; the rates are the paper's, the other numbers an example."""


def finished_before(config: StageConfig, component: str, stage: str, faces: Callable[[str], str]) -> bool:
    """Whether a component is whole and trained at least as long as is asked for.

    Args:
        faces: computes the identity of the faces that a component is trained on.

    Raises:
        InvalidInputError: it is, but of other settings or other faces.
    """
    folder = Path(config.output_dir) / component
    if not folder.is_dir() or not is_finished(folder):
        return False
    record = read_record(folder)
    if record is None:  # put there by hand, or by a version that kept no records
        return True
    if record["stage"] != stage:  # a later stage went on from it, and says nothing of how it began
        return True
    held = {name: record["identity"][name] for name in ("format", "settings", "data")}
    asked = {"format": FORMAT, "settings": json.loads(json.dumps(run_settings(config))), "data": faces(component)}
    if other := first_differences(held, asked):
        raise InvalidInputError(f"{folder} is of another run ({other}): give another --output-dir or remove it")
    return bool(record["steps"] >= config.steps)


def run(
    config: Config,
    *,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Make everything; every finished stage is kept.

    Args:
        overrides: by component (on the published classes by stage), settings of its stage that differ from the recipe.

    Raises:
        InvalidInputError: there are no faces; ``model`` is missing, or is for another kind of preset.
    """
    data = config.data
    if is_published(load_preset(config.preset)) != (config.model is not None):
        told = "is trained from published weights: name their folder" if config.model is None else "takes no folder"
        raise InvalidInputError(f"the preset '{config.preset}' {told} as --model (docs/paper-scale.md)")
    if not data and not config.synthetic_faces:
        raise InvalidInputError("there are no faces to train on: give --data, or draw some with --synthetic-faces")
    if config.synthetic_faces:
        from prefrestore.data.synthesize import SynthesisConfig, synthesize_faces

        folder = config.output_dir / "synthetic"
        with main_process_first():
            synthesize_faces(folder, config.synthetic_faces, SynthesisConfig(seed=config.seed, size=512))
        data = (*data, folder)
    output, preset, seed = config.output_dir, config.preset, config.seed
    if is_published(load_preset(preset)):
        _two_steps(replace(config, data=data), overrides or {}, log)
        return

    def steps(stage: type) -> int:
        return max(2, round(stage.steps * config.steps_scale))  # type: ignore[attr-defined]

    def faces(component: str) -> str:
        names = load_preset(preset)
        read = component in ("image_tokenizer", "language_model")  # these look at faces of the tokenizer's size
        size = names.component("image_tokenizer").arguments["image_size"] if read else names.face_size
        return face_identity(load_training_faces(data, size))

    for component, stage in (
        ("autoencoder", autoencoder),
        ("image_tokenizer", tokenizer),
        ("language_model", semantic),
        ("lq_encoder", encoder),
        ("transformer", fidelity),
    ):
        settings = {"data": data, "output_dir": output, "preset": preset, "seed": seed}
        settings |= {"steps": steps(stage.Config)} | dict((overrides or {}).get(component, {}))
        stage_config = stage.Config(**settings)
        if finished_before(stage_config, component, stage.__name__.rpartition(".")[2], faces):
            log(f"{component}: finished before, passed over")
            continue
        log(f"training {component}")
        stage.run(stage_config, log=log)
    if is_main_process():
        assemble.run(
            assemble.Config(data=data, output_dir=output, destination=config.destination, preset=preset, seed=seed),
            log=log,
        )


def _two_steps(config: Config, overrides: Mapping[str, Mapping[str, Any]], log: Callable[[str], None]) -> None:
    """Steps 1 and 2 on the published classes, under ``output_dir/semantic`` and ``output_dir/fidelity``."""
    assemble.check_replaceable(config.destination)
    model, finished = config.model, config.output_dir
    for stage in (semantic, fidelity):
        name = stage.__name__.rpartition(".")[2]
        finished = config.output_dir / name
        settings = {"data": config.data, "preset": config.preset, "seed": config.seed} | PUBLISHED[name]
        settings |= {"steps": max(2, round(PUBLISHED[name]["steps"] * config.steps_scale))}
        settings |= {"output_dir": finished, "model": model, **overrides.get(name, {})}
        log(f"training {name}")  # one that is finished is not passed over: its run is compared with what is asked for
        stage.run(stage.Config(**settings), log=log)
        model = finished / ASSEMBLED
    if is_main_process():
        without = shutil.ignore_patterns(RUN_FILE)
        assemble.write_destination(
            config.destination, lambda folder: shutil.copytree(finished / PIPELINE, folder, ignore=without)
        )
        log(f"{config.destination}: in full precision; the published layout is {model}")
