"""Speed on this machine: a face alone and in batches, stage by stage, a whole photo from a cold start, and memory.

    python benchmarks/speed.py                        the bundled weights, scikit-image's photo of a person
    python benchmarks/speed.py --preset tiny          random weights, only to see that it runs
    python benchmarks/speed.py --photo group.jpg --threads 2 --json speed.json
    python benchmarks/speed.py peers --threads 2      the compact preset beside the peers' networks at 512 px
    python benchmarks/speed.py drafting               drafted decoding against plain decoding (`parts/shortcuts.py`)
    python benchmarks/speed.py solvers                a second-order solver with fewer steps (there, too)

Warm times are medians. The cold start and the memory are those of a new process that restores the one photo, from
starting Python to the written file. The load average is printed, because other work on the machine makes it slow.

`peers` times aligned faces in turns, so that other work disturbs all alike: ours from 8-bit pixels to the restored
face, of the peers only the network (`parts/peer_networks.py`), all in float32. "Times ours" is the median of the turns'
ratios; "CPU" leaves out the time in which other work ran. The memory is the weights and the tensors alive at the worst
moment, without any library's workspace. GFLOP counts convolutions and products of matrices, a multiplication and an
addition as two.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from parts.systems import command
from rich.console import Console
from rich.table import Table

BATCH = 8
# In the order in which a photo meets them. What no wrapped method covers is "rest".
STAGES = ("detection", "tokenizer", "LM", "LQ encoder", "flow", "decoder", "blending")


class Clock:
    """Adds up the seconds inside wrapped methods."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def wrap(self, owner: Any, name: str, stage: str) -> None:
        """Replace `owner.name` by a timed call of it."""
        inner: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds[stage] += time.perf_counter() - start

        setattr(owner, name, timed)


def load(options: argparse.Namespace, face_size: int | str | None = None) -> Any:
    import torch

    from prefrestore.pipeline.build import load_preset_pipeline

    if options.threads:
        torch.set_num_threads(options.threads)
    pipeline = load_preset_pipeline(options.preset, folder=options.model, face_size=face_size or options.face_size)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def photo_of(options: argparse.Namespace, folder: Path) -> Path:
    """The named photo, or scikit-image's photo of a person, blurred so that the rules let it be restored."""
    if options.photo:
        return options.photo
    from PIL import Image, ImageFilter
    from skimage.data import astronaut

    path = folder / "person.png"
    Image.fromarray(astronaut()).filter(ImageFilter.GaussianBlur(2)).save(path)
    return path


def cold(options: argparse.Namespace, photo: Path) -> dict[str, float]:
    """Seconds and peak memory of a new process that restores the photo."""
    command = [sys.executable, __file__, "--worker", "--preset", options.preset, "--photo", str(photo)]
    command += ["--threads", str(options.threads)] if options.threads else []
    command += ["--model", str(options.model)] if options.model else []
    command += ["--steps", str(options.steps)] if options.steps else []
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"cold photo s": time.perf_counter() - start, **json.loads(done.stdout.splitlines()[-1])}


def worker(options: argparse.Namespace) -> None:
    """The cold process: restore, write, and print the peak resident memory (ru_maxrss is KiB on Linux)."""
    from prefrestore.pictures.encode import write_photo
    from prefrestore.restoration.options import RestoreOptions
    from prefrestore.restoration.photo import restore_photo

    result = restore_photo(options.photo, load(options), options=RestoreOptions(steps=options.steps))
    with tempfile.TemporaryDirectory() as folder:
        write_photo(result.photo, Path(folder) / "out.png")
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    restored = sum(face.status == "restored" for face in result.faces)
    print(json.dumps({"peak memory MB": peak / 1e6, "faces restored": restored}))


def faces_of(size: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(BATCH)]


def call(pipeline: Any, faces: list[np.ndarray], steps: int | None) -> float:
    import torch

    generators = [torch.Generator().manual_seed(index) for index in range(len(faces))]
    start = time.perf_counter()
    pipeline(faces, generator=generators, num_inference_steps=steps, output_type="np")
    return time.perf_counter() - start


def timed(pipeline: Any, detector: Any) -> list[tuple[Any, str, str]]:
    """What is timed of a photo's way: whose attribute, its name, and the stage that its time counts for."""
    from prefrestore.models.semantic import queries
    from prefrestore.restoration import photo

    return [
        (detector, "detect", "detection"),
        (pipeline.image_tokenizer, "encode", "tokenizer"),
        (queries, "write_tokens", "LM"),
        (pipeline, "encode_texture", "LQ encoder"),
        (pipeline.transformer, "forward", "flow"),
        (pipeline, "decode", "decoder"),
        (photo, "render_at", "blending"),
    ]


def warm(options: argparse.Namespace, photo: Path) -> dict[str, float]:
    """Seconds a face alone and in batches, and the shares of the stages in one warm photo."""
    from prefrestore.faces.detect import FaceDetector
    from prefrestore.restoration import photo as photo_module

    start = time.perf_counter()
    pipeline = load(options)
    result = {"loading s": time.perf_counter() - start}
    faces = faces_of(pipeline.face_size)
    call(pipeline, faces[:1], options.steps)
    one = statistics.median(call(pipeline, faces[:1], options.steps) for _ in range(options.repeats))
    many = statistics.median(call(pipeline, faces, options.steps) for _ in range(options.repeats))
    result |= {"warm s/face": one, f"s/face in batches of {BATCH}": many / BATCH, "faces/min": 60 * BATCH / many}

    clock, detector = Clock(), FaceDetector()
    for owner, name, stage in timed(pipeline, detector):
        clock.wrap(owner, name, stage)
    from prefrestore.restoration.options import RestoreOptions

    chosen = RestoreOptions(steps=options.steps)
    photo_module.restore_photo(photo, pipeline, options=chosen, detector=detector)
    clock.seconds.clear()
    start = time.perf_counter()
    photo_module.restore_photo(photo, pipeline, options=chosen, detector=detector)
    total = time.perf_counter() - start
    stages = {stage: clock.seconds[stage] for stage in STAGES}
    return result | {"warm photo s": total, **{f"  {k}": v for k, v in stages.items()},
                     "  rest": total - sum(stages.values())}  # fmt: skip


def peers(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """By network: parameters, memory and work of one face, and its seconds, of ours also in batches.

    A last octave that the weights lack is a new one: speed does not depend on weights.
    """
    import torch
    from parts.peer_networks import NETWORKS, PUBLISHED, SIDE
    from torch.utils.flop_counter import FlopCounterMode

    from prefrestore.pipeline.components import build_component
    from prefrestore.pipeline.memory import Component, Counter
    from prefrestore.pipeline.presets import load_preset

    torch.set_grad_enabled(False)
    large, core = load(options), load(options, "core")
    if large.last_octave is None:
        large.register_modules(last_octave=build_component(load_preset(options.preset), "last_octave"))
    ours = f"ours, {large.face_size} px"
    modules: dict[str, list[torch.nn.Module]] = {}
    runs: dict[str, Callable[[], object]] = {}
    for name, pipeline in ((ours, large), (f"ours, {core.face_size} px", core)):
        modules[name] = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
        runs[name] = partial(call, pipeline, faces_of(pipeline.face_size)[:1], options.steps)
    for kind in NETWORKS:
        network = kind().eval().requires_grad_(False)
        modules[kind.__name__] = [network]
        runs[kind.__name__] = partial(network, torch.rand(1, 3, SIDE, SIDE) * 2 - 1)

    rows: dict[str, dict[str, float]] = {}
    for name, run in runs.items():  # the first call of each is not timed
        with Counter() as tensors, FlopCounterMode(display=False) as work:
            run()
        parts = [Component.of(name, module) for module in modules[name]]
        weights = sum(part.weights for part in parts)
        rows[name] = {"parameters M": sum(part.parameters for part in parts) / 1e6}
        if name in PUBLISHED:
            rows[name]["weights' file, published / 4"] = PUBLISHED[name] / 4e6
            if abs(weights / PUBLISHED[name] - 1) > 0.01:
                raise SystemExit(f"{name} has {weights} bytes of weights, published are {PUBLISHED[name]}")
        rows[name] |= {"memory MB": (weights + tensors.peak) / 1e6, "GFLOP": work.get_total_flops() / 1e9}
    batch = f"{ours}, in batches of {BATCH}"
    runs[batch] = partial(call, large, faces_of(large.face_size), options.steps)
    rows[batch] = {}

    clocks = {"": time.perf_counter, "CPU ": time.process_time}
    taken: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(options.repeats):
        for name, run in runs.items():
            before = {kind: clock() for kind, clock in clocks.items()}
            run()
            count = BATCH if name == batch else 1
            taken[name].append({kind: (clock() - before[kind]) / count for kind, clock in clocks.items()})
    for name, row in rows.items():
        for kind in clocks:
            ratios = [turn[kind] / own[kind] for turn, own in zip(taken[name], taken[ours], strict=True)]
            row[f"{kind}s a face"] = statistics.median(turn[kind] for turn in taken[name])
            row[f"{kind}times ours"] = statistics.median(ratios)
    return rows


def shown(rows: dict[str, dict[str, float]], title: str) -> Table:
    """Rows of values by their names; a row may lack some."""
    table, columns = Table("what", title=title), dict.fromkeys(key for row in rows.values() for key in row)
    for key in columns:
        table.add_column(key, justify="right")
    for name, row in rows.items():
        values = (row.get(key) for key in columns)
        table.add_row(name, *("" if v is None else f"{v:.3f}" if v < 10 else f"{v:.1f}" for v in values))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("photo", "peers"), default="photo")
    parser.add_argument("--preset", default="compact")
    parser.add_argument("--face-size", type=int, help="512 by default; 256 is the core alone")
    parser.add_argument("--model", type=Path, help="a pipeline folder in place of the bundled weights")
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int, help="torch's threads")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options)
        return 0
    load_before = os.getloadavg()[0]
    if options.what == "peers":
        result: dict[str, Any] = dict(rows := peers(options))
    else:
        with tempfile.TemporaryDirectory() as folder:
            photo = photo_of(options, Path(folder))
            result = cold(options, photo) | warm(options, photo)
        rows = {key: {"value": value} for key, value in result.items()}
    threads = options.threads or "torch's"
    title = f"{options.preset}, {os.cpu_count()} processors, {threads} threads, load average before {load_before:.1f}"
    Console(width=160).print(shown(rows, title))
    if options.json:
        options.json.write_text(json.dumps(result | {"load average before": load_before}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(command(main, drafting="shortcuts:drafting", solvers="shortcuts:solvers"))
