"""Finished components in a working folder: every stage reads those of the stages before it.

A component that a run wrote says so in its ``run.json``: which run, after how many steps, the hashes of its files, and
what was written together with it. While files are put in their places the record says that they are not all there.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.files.atomic import written_beside
from prefrestore.files.fingerprints import digest, file_hash

RUN_FILE = "run.json"

_STAGE_OF = {
    "autoencoder": "autoencoder",
    "lq_encoder": "encoder",
    "input_skip": "encoder",
    "image_tokenizer": "tokenizer",
    "text_tokenizer": "semantic",
    "language_model": "semantic",
    "transformer": "fidelity",
    "connectors": "fidelity",
    "last_octave": "octave",
    "steering": "steering",
}


def component_folder(output_dir: Path, name: str) -> Path:
    """The folder of a finished component.

    Raises:
        WeightsError: it is not there yet, or not whole; the message names the command that makes it.
    """
    folder = Path(output_dir) / name
    command = f"run `prefrestore train {_STAGE_OF[name]} --output-dir {output_dir}`"
    if not folder.is_dir():
        raise WeightsError(f"{folder} is not there yet: {command} first")
    if not is_finished(folder):
        raise WeightsError(f"{folder} is not whole: {command} again")
    return folder


def read_record(folder: Path) -> dict[str, Any] | None:
    """What ``run.json`` of a component says; None where there is none (the component was put there by hand).

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        record = json.loads((Path(folder) / RUN_FILE).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{Path(folder) / RUN_FILE} cannot be read ({error})") from error
    if not isinstance(record, dict):
        raise WeightsError(f"{Path(folder) / RUN_FILE} holds no record of a run")
    return record


def is_finished(folder: Path) -> bool:
    """Whether a component is whole: every file of its record as written, or configuration and weights put there."""
    record = read_record(folder)
    if record is None:
        configured = any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))
        return (folder / "tokenizer.json").is_file() or (configured and any(folder.glob("*.safetensors")))
    files: dict[str, str] = record.get("files") or {}
    return bool(files) and all((folder / f).is_file() and file_hash(folder / f) == h for f, h in files.items())


def check_together(output_dir: Path, names: Iterable[str]) -> None:
    """Components that a run wrote together are still those of one run.

    Raises:
        WeightsError: one of ``names`` lies beside a part of another run.
    """
    for name in names:
        record = read_record(Path(output_dir) / name) or {}
        for other in record.get("together", ()):
            beside = read_record(Path(output_dir) / other) or {}
            if (beside.get("run"), beside.get("steps")) != (record.get("run"), record.get("steps")):
                raise WeightsError(
                    f"{Path(output_dir) / name} and {Path(output_dir) / other} were written together and are now of "
                    f"different runs: run `prefrestore train {record.get('stage')}` again"
                )


def write_components(
    output_dir: Path,
    parts: Mapping[str, Callable[[Path], object]],
    identity: Mapping[str, Any],
    steps: int,
    *,
    over: Iterable[str] = (),
) -> bool:
    """Write the components of a run to ``output_dir``, all beside their places first; False if they are there already.

    Files that this command did not write stay where they are.

    Args:
        parts: by the component's name, what writes it into a folder.
        identity: of the run. steps: how many it was trained.
        over: other stages whose components this run went on from, and may replace.

    Raises:
        InvalidInputError: a component in the folder is of another stage.
    """
    output_dir, run, stage = Path(output_dir), digest(identity), identity.get("stage")
    held = {name: read_record(output_dir / name) for name in parts}
    same = [r is not None and (r.get("run"), r.get("steps")) == (run, steps) for r in held.values()]
    if all(same) and all(is_finished(output_dir / name) for name in parts):
        return False
    for name, record in held.items():
        if record is not None and record.get("stage") not in {stage, *over}:
            raise InvalidInputError(
                f"{output_dir / name} is what the stage {record.get('stage')} made of it, and would be lost: "
                f"give another --output-dir"
            )
    output_dir.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".export.", dir=output_dir))
    try:
        for name, write in parts.items():
            (scratch / name).mkdir()
            write(scratch / name)
        about = {"stage": stage, "run": run, "steps": steps, "together": sorted(parts), "identity": dict(identity)}
        for name in parts:  # from here on none of them counts as whole, until all its files are in their places
            _write_record(output_dir / name, about)
        for name in parts:
            _put(scratch / name, output_dir / name, held[name] or {})
            files = sorted(path for path in (scratch / name).rglob("*") if path.is_file())
            hashes = {path.relative_to(scratch / name).as_posix(): file_hash(path) for path in files}
            _write_record(output_dir / name, about | {"files": hashes})
    finally:
        shutil.rmtree(scratch)
    return True


def _put(made: Path, folder: Path, before: Mapping[str, Any]) -> None:
    """Copy the files of ``made`` into ``folder``, each in one move, and take away those of the last export."""
    files = [path for path in made.rglob("*") if path.is_file()]
    for path in files:
        with written_beside(folder / path.relative_to(made)) as part:
            shutil.copyfile(path, part)
    for name in set(before.get("files") or {}) - {path.relative_to(made).as_posix() for path in files}:
        (folder / name).unlink(missing_ok=True)


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    with written_beside(folder / RUN_FILE) as part:
        part.write_text(json.dumps(record, indent=2, sort_keys=True, default=os.fspath) + "\n")
