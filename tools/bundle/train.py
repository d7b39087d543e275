"""Trains everything from a bundle, in slices: `python train.py --minutes 9 --out OUT`, and the same command again.

Unpacked beside this file lie the code, faces, networks and first weights that `tools/bundle/make.py` put there. Each
call goes on where the last one stopped, prints how fast each stage was and how long it waited for data, and leaves at
most eight files of 16 MiB in OUT.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "src"), str(HERE / "packages"), *map(str, sorted((HERE / "packages").glob("*.whl.d")))]
if (HERE / "src").is_dir():  # else this is the checkout itself
    os.environ.setdefault("PREFRESTORE_CACHE", str(HERE / "cache"))

RESERVE = 30.0
"""Seconds of a slice that are kept for writing weights and results."""


def unpack(here: Path) -> None:
    """Faces and wheels of the bundle, each once."""
    if (here / "faces.zip").is_file() and not (here / "data").is_dir():
        with zipfile.ZipFile(here / "faces.zip") as archive:
            archive.extractall(here / "data.part")
        (here / "data.part").rename(here / "data")
    for wheel in sorted((here / "wheels").glob("*.whl")):
        folder = here / "packages" / f"{wheel.name}.d"
        if not folder.is_dir():
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder.with_suffix(".part"))
            folder.with_suffix(".part").rename(folder)
        if str(folder) not in sys.path:
            sys.path.insert(2, str(folder))


def spoken(name: str, work: Path, step: int, steps: int, before: int) -> str:
    """What the stage's log says of this slice: where it is, samples a second, and the share of time without data."""
    import json

    log = work / "runs" / name / "log.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()][before:] if log.is_file() else []
    told = f"{name}: step {step} of {steps}"
    if not rows:
        return f"{told}, too few in this slice to say how fast"
    rate = sum(row["samples_per_second"] for row in rows) / len(rows)
    waiting = sum(row["waiting_for_data"] for row in rows) / len(rows)
    told = f"{told}, {rate:.1f} samples a second, {100 * waiting:.1f} % of the time waiting for data"
    return f"{told}, loss {rows[-1]['loss']:.4f}"


def run(options: argparse.Namespace) -> None:
    """One slice. Raises what the stages raise."""
    import cv2
    import recipe
    import torch
    from drawing import draw_faces
    from results import gather

    from prefrestore.errors import InvalidInputError
    from prefrestore.training.stage import usual_precision

    asked, known = tuple(options.stages.split(",")), [stage.name for stage in recipe.STAGES]
    if strange := set(asked) - set(known):
        raise InvalidInputError(f"there is no stage {min(strange)!r}: they are {', '.join(known)}")
    if 60 * options.minutes <= RESERVE:
        raise InvalidInputError(
            f"a slice of {options.minutes:g} minutes has no time to train in: give it a minute or more"
        )
    cv2.setNumThreads(0)  # workers are forked, and its threads would not survive that
    report: list[str] = []

    def log(text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def told(text: str) -> None:
        report.append(text)
        log(text)

    work, data, first = options.work, options.data, HERE / "first" / options.preset
    deadline = time.monotonic() + 60 * options.minutes
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    told(f"on {device}, precision {usual_precision()}, {options.workers} worker processes")
    if options.drawn and (HERE / "generator.safetensors").is_file():
        size = 512 if options.preset != "tiny" else 64
        settings = {"size": size, "seed": options.seed, "threads": options.workers, "log": told}
        draw_faces(HERE / "generator.safetensors", data / "faces" / "synthetic", options.drawn, **settings)
    recipe.lay_out(first, work, asked)
    try:
        for stage in recipe.up_to(asked):
            if (left := deadline - time.monotonic() - RESERVE) <= 0:
                break
            if line := train_stage(stage, options, first if stage.name in asked else None, left, log):
                told(line)
    finally:  # where a stage fails, what the others have learnt is left all the same
        for path in gather(work, options.out, report):
            log(f"{path.stat().st_size / 2**20:6.2f} MiB  {path}")


def train_stage(
    stage: Any, options: argparse.Namespace, first: Path | None, seconds: float, log: Callable[[str], None]
) -> str | None:
    """Train one stage for at most so many seconds and say how it went; None where there is nothing left to train.

    ``first``: the folder of first weights that it may start from.
    """
    import recipe

    from prefrestore.training import assemble

    work, data = options.work, (options.data,)
    chosen = recipe.settings(stage, scale=options.scale, preset=options.preset)
    done = recipe.steps_done(stage, work)
    if done is None or done >= chosen["steps"]:
        return None
    started = time.monotonic()
    settings = {"data": data, "output_dir": work, "preset": options.preset, "seed": options.seed}
    if stage.name == "preference":
        chosen["model"] = work / "pipeline"
        if not done:
            assemble.run(assemble.Config(destination=chosen["model"], faces=2, **settings), log=log)
    settings |= {"num_workers": options.workers, "max_minutes": seconds / 60} | chosen
    settings |= recipe.starting_point(stage, first) if first is not None else {}
    log_file = work / "runs" / stage.name / "log.jsonl"
    before = len(log_file.read_text().splitlines()) if log_file.is_file() else 0
    step = stage.trainer.run(stage.trainer.Config(**settings), log=log).step
    said = spoken(stage.name, work, step, chosen["steps"], before)
    return f"{said}, {time.monotonic() - started:.0f} s with its caches"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train for a slice, or say what one should reach; 1 after a failure."""
    parser = argparse.ArgumentParser(description="Train everything from this bundle, a slice at a time.")
    parser.add_argument("--minutes", type=float, default=9, help="length of the slice")
    parser.add_argument("--out", type=Path, default=HERE / "out", help="where weights, logs and sheets are left")
    parser.add_argument("--work", type=Path, default=HERE / "work", help="checkpoints, caches and components")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="faces; the bundle's own where not given")
    parser.add_argument("--stages", default="encoder,fidelity,preference,octave", help="to train, in their order")
    parser.add_argument("--preset", default="compact")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies steps and pairs; 0.01 to try it")
    parser.add_argument("--drawn", type=int, default=4096, help="faces to draw first; 0 draws none")
    parser.add_argument("--workers", type=int, default=max(0, (os.cpu_count() or 1) - 1), help="processes that degrade")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true", help="say by arithmetic what a slice should reach, and stop")
    parser.add_argument("--tflops", type=float, default=400, help="of the device in bf16, dense, for the dry run")
    parser.add_argument("--utilisation", type=float, default=0.15, help="share of them that is reached: an assumption")
    options = parser.parse_args(arguments)
    from prefrestore.errors import PrefRestoreError

    try:
        unpack(HERE)
        if options.dry_run:
            from arithmetic import estimate

            estimate(options)
        else:
            run(options)
    except (PrefRestoreError, OSError, zipfile.BadZipFile) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
