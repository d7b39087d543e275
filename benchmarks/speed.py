"""Speed on this machine: a face alone and in batches, stage by stage, a whole photo from a cold start, and memory.

    python benchmarks/speed.py                        the bundled weights, scikit-image's photo of a person
    python benchmarks/speed.py --preset tiny          random weights, only to see that it runs
    python benchmarks/speed.py --photo group.jpg --threads 2 --json speed.json

Warm times are medians. The cold start and the memory are those of a new process that restores the one photo, from
starting Python to the written file. The load average is printed, because other work on the machine makes it slow.
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
from pathlib import Path
from typing import Any

import numpy as np
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


def load(options: argparse.Namespace) -> Any:
    import torch

    from prefrestore.pipeline.build import load_preset_pipeline

    if options.threads:
        torch.set_num_threads(options.threads)
    pipeline = load_preset_pipeline(options.preset, folder=options.model, face_size=options.face_size)
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


def warm(options: argparse.Namespace, photo: Path) -> dict[str, float]:
    """Seconds a face alone and in batches, and the shares of the stages in one warm photo."""
    from prefrestore.faces.detect import FaceDetector
    from prefrestore.pipeline import pipeline as pipeline_module
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
    clock.wrap(detector, "detect", "detection")
    clock.wrap(pipeline.image_tokenizer, "encode", "tokenizer")
    clock.wrap(pipeline_module, "write_tokens", "LM")
    clock.wrap(pipeline, "encode_texture", "LQ encoder")
    clock.wrap(pipeline.transformer, "forward", "flow")
    clock.wrap(pipeline, "decode", "decoder")
    clock.wrap(photo_module, "render", "blending")
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    with tempfile.TemporaryDirectory() as folder:
        photo = photo_of(options, Path(folder))
        result = cold(options, photo) | warm(options, photo)
    result["load average before"] = load_before
    table = Table(title=f"{options.preset}, {os.cpu_count()} processors")
    table.add_column("what")
    table.add_column("value", justify="right")
    for key, value in result.items():
        table.add_row(key, f"{value:.3f}" if value < 10 else f"{value:.1f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
