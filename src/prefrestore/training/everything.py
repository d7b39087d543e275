"""Every stage in order, from folders of faces to a finished pipeline folder: the recipe of the shipped weights.

Each stage resumes from its own checkpoint, and a stage whose component is finished is passed over, so the command may
be stopped and given again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefrestore.errors import InvalidInputError
from prefrestore.training import assemble, autoencoder, encoder, fidelity, semantic, tokenizer
from prefrestore.training.processes import is_main_process, main_process_first


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

    def missing(component: str) -> bool:
        if (output / component / "config.json").is_file():
            log(f"{component}: finished before, passed over")
            return False
        return True

    for component, stage in (
        ("autoencoder", autoencoder),
        ("lq_encoder", encoder),
        ("image_tokenizer", tokenizer),
        ("language_model", semantic),
        ("transformer", fidelity),
    ):
        if missing(component):
            log(f"training {component}")
            settings = {"data": data, "output_dir": output, "preset": preset, "seed": seed}
            settings |= {"steps": steps(stage.Config)} | dict((overrides or {}).get(component, {}))
            stage.run(stage.Config(**settings), log=log)
    if is_main_process():
        assemble.run(
            assemble.Config(data=data, output_dir=output, destination=config.destination, preset=preset, seed=seed),
            log=log,
        )
