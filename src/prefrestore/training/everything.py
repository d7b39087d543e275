"""Every stage in order, from folders of faces to a finished pipeline folder: the recipe of the shipped weights.

Each stage resumes from its own checkpoint, and a stage whose component is finished is passed over, so the command may
be stopped and given again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefrestore.data.identity import face_identity
from prefrestore.errors import InvalidInputError
from prefrestore.files.fingerprints import FORMAT, first_differences
from prefrestore.pipeline.presets import load_preset
from prefrestore.training import assemble, autoencoder, encoder, fidelity, semantic, tokenizer
from prefrestore.training.components import is_finished, read_record
from prefrestore.training.identity import run_settings
from prefrestore.training.pairs import load_training_faces
from prefrestore.training.processes import is_main_process, main_process_first
from prefrestore.training.stage import StageConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """``prefrestore train all``.

    Args:
        data: folders of aligned faces (or the layout of the project's data card); none is enough when faces are
            drawn.
        output_dir: the working folder: components, checkpoints, grids, caches.
        destination: the pipeline folder to write at the end.
        synthetic_faces: how many faces to draw first into ``output_dir/synthetic`` (extra ``synth``); 0 draws none.
        steps_scale: multiplies every stage's number of steps; 1.0 is the recipe of the shipped weights.
    """

    output_dir: Path
    destination: Path
    data: tuple[Path, ...] = ()
    preset: str = "compact"
    synthetic_faces: int = 0
    steps_scale: float = 1.0
    seed: int = 0


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
        overrides: by component, settings of its stage that differ from the recipe.
    """
    data = config.data
    if not data and not config.synthetic_faces:
        raise InvalidInputError("there are no faces to train on: give --data, or draw some with --synthetic-faces")
    if config.synthetic_faces:
        from prefrestore.data.synthesize import SynthesisConfig, synthesize_faces

        folder = config.output_dir / "synthetic"
        with main_process_first():
            synthesize_faces(folder, config.synthetic_faces, SynthesisConfig(seed=config.seed, size=512))
        data = (*data, folder)
    output, preset, seed = config.output_dir, config.preset, config.seed

    def steps(stage: type) -> int:
        return max(2, round(stage.steps * config.steps_scale))  # type: ignore[attr-defined]

    def faces(component: str) -> str:
        names = load_preset(preset)
        read = component in ("image_tokenizer", "language_model")  # these look at faces of the tokenizer's size
        size = names.component("image_tokenizer").arguments["image_size"] if read else names.face_size
        return face_identity(load_training_faces(data, size))

    for component, stage in (
        ("autoencoder", autoencoder),
        ("lq_encoder", encoder),
        ("image_tokenizer", tokenizer),
        ("language_model", semantic),
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
