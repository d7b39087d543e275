"""Is the picture wrong where the uncertainty map is hot? Predicted standard deviation against actual error.

    python benchmarks/preference.py calibration --limit 16 --plot calibration.png
    python benchmarks/preference.py calibration --truth sharp/ --input blurred/ --samples 8
    python benchmarks/preference.py landmark-spread          the landmark meter's own spread

Both are averaged over the same neighbourhood first (Gaussian, of variances and of squared errors; --scale is its sigma
as a share of the side). The columns, for each way of predicting:

  face, crop   Spearman's rank correlation over the pixels of one picture, mean over pictures: inside the mask within
               which faces are put into photos, and over the whole crop
  least        the lowest of the pictures' own, inside the mask
  pooled       over the masked pixels of all pictures together (every fourth in both directions)
  pictures     over the pictures: mean square predicted against mean square error
  error/std    root mean square error over root mean square predicted: 1 would be calibrated

Ways: seeds (the same face, N seeds), views (what `restore --uncertainty` draws: the face moved by some pixels), and
edges, the strength of the result's own edges, which needs no samples and which an uncertainty has to be held against.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from parts.systems import BENCH, names_of, read, sample
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from prefrestore.errors import PrefRestoreError
from prefrestore.evaluation.protocols import PROTOCOLS, protocol_sets
from prefrestore.faces.blend import face_mask
from prefrestore.metrics.landmarks import LandmarkMeter
from prefrestore.metrics.spread import landmark_std, pixel_std
from prefrestore.models.adapter import add_adapter, using_adapter
from prefrestore.pictures.read import read_photo
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.restoration.uncertainty.heatmap import SCALE, smooth_std
from prefrestore.restoration.uncertainty.sampling import draw

Map = NDArray[np.float32]
WAYS = ("seeds", "views", "edges")


def maps_of(pipeline: Any, lq: Map, truth: Map, options: argparse.Namespace) -> dict[str, Map]:
    """One face: the error and every prediction of it, S x S, smoothed."""
    generators = [[torch.Generator().manual_seed(options.seed + k) for k in range(options.samples)]]
    (made,) = draw(pipeline, [lq], generators, views=True, num_inference_steps=options.steps)
    shown = made.images[0]
    grey = np.ascontiguousarray(shown.mean(axis=2))
    maps = {
        "error": np.sqrt(np.square(shown - truth).mean(axis=2)),
        "seeds": pixel_std(made.images),
        "views": pixel_std(made.views),
        "edges": np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)) / 8,
    }
    return {name: smooth_std(values, options.scale * len(values)) for name, values in maps.items()}


def rms(values: Map) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def rank_correlation(predicted: Any, actual: Any) -> float:
    """Spearman's coefficient, -1..1."""
    return float(spearmanr(np.ravel(predicted), np.ravel(actual)).statistic)


def binned(predicted: Map, actual: Map, bins: int = 10) -> list[tuple[float, float]]:
    """(predicted, actual) root mean squares in bins of equally many values: on the diagonal if calibrated."""
    parts = np.array_split(np.argsort(predicted, kind="stable"), bins)
    return [(rms(predicted[part]), rms(actual[part])) for part in parts]


def row(faces: Sequence[dict[str, Map]], way: str, mask: NDArray[np.bool_]) -> list[float]:
    """The columns of the table, in the order of the module's docstring."""
    inside = [rank_correlation(face[way][mask], face["error"][mask]) for face in faces]
    whole = [rank_correlation(face[way], face["error"]) for face in faces]
    predicted, actual = pooled(faces, way, mask)
    pictures = rank_correlation([rms(face[way]) for face in faces], [rms(face["error"]) for face in faces])
    return [
        float(np.mean(inside)),
        float(np.mean(whole)),
        min(inside),
        rank_correlation(predicted, actual),
        pictures,
        rms(actual) / max(rms(predicted), 1e-12),
    ]


def pooled(faces: Sequence[dict[str, Map]], way: str, mask: NDArray[np.bool_]) -> tuple[Map, Map]:
    """Prediction and error of every fourth masked pixel of all faces."""
    sparse = mask[::4, ::4]
    predicted, actual = (np.concatenate([face[name][::4, ::4][sparse] for face in faces]) for name in (way, "error"))
    return predicted, actual


def plot(series: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Predicted against actual on equal axes, with the diagonal of a calibrated prediction."""
    from matplotlib.figure import Figure

    axes = Figure(figsize=(6, 6), layout="constrained").subplots()
    most = 1.05 * max(value for pairs in series.values() for pair in pairs for value in pair)
    axes.plot([0, most], [0, most], color="grey", label="calibrated")
    for name, pairs in series.items():
        axes.plot(*zip(*pairs, strict=True), marker="o", label=name)
    axes.set(xlim=(0, most), ylim=(0, most), aspect="equal")
    axes.set(xlabel="predicted standard deviation", ylabel="actual error, root mean square")
    axes.grid(alpha=0.3)
    axes.legend()
    axes.figure.savefig(path)


def calibrate(options: argparse.Namespace, console: Console) -> None:
    pipeline = load_preset_pipeline("compact", folder=options.model, face_size="core")
    pipeline.set_progress_bar_config(disable=True)
    size = pipeline.face_size
    folders = [options.input] if options.input else [options.bench / level for level in options.levels]
    truth = options.truth or options.bench / "gt"
    names = sample(names_of(truth, folders), options.limit)
    mask = face_mask(size) > 0.5
    table = Table(title=f"n {len(names)}, {options.samples} samples a face, scale {options.scale:.4f} of the side")
    for column in ("input", "way", "face", "crop", "least", "pooled", "pictures", "error/std"):
        table.add_column(column, justify="right")
    series = {}
    for folder in folders:
        faces = []
        for name in names:
            pair = [np.asarray(read(place / name).resize((size, size)), np.float32) / 255 for place in (folder, truth)]
            faces.append(maps_of(pipeline, *pair, options))
            print(f"{folder.name} {name}", file=sys.stderr, flush=True)
        for way in WAYS:
            values = row(faces, way, mask)
            table.add_row(folder.name, way, *(f"{value:.2f}" for value in values))
        series |= {f"{folder.name}, {way}": binned(*pooled(faces, way, mask)) for way in ("views", "seeds")}
    console.print(table)
    if options.plot:
        plot(series, options.plot)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, default=BENCH, help="folder that holds gt and the levels")
    parser.add_argument("--levels", nargs="+", default=["mild", "severe"], help="folders beside gt")
    parser.add_argument("--truth", type=Path, help="in place of gt")
    parser.add_argument("--input", type=Path, help="in place of the levels: one folder of degraded pictures")
    parser.add_argument("--limit", type=int, help="a fixed random sample of this many faces")
    parser.add_argument("--samples", type=int, default=4, help="restorations a face, 2 or more")
    parser.add_argument("--scale", type=float, default=SCALE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="of the flow; by default the preset's")
    parser.add_argument("--model", type=Path, help="a pipeline folder in place of the bundled weights")
    parser.add_argument("--plot", type=Path, help="write a plot of binned values (PNG)")
    return parser.parse_args()


def main() -> int:
    console = Console() if sys.stdout.isatty() else Console(width=160)
    try:
        calibrate(parse(), console)
    except PrefRestoreError as error:
        console.print(f"error: {error}", markup=False)
        return 1
    return 0


SHIFTS = {"1": (0,), "9": (-6, 0, 6), "25": range(-6, 7, 3), "81": range(-12, 13, 3), "169": range(-12, 13, 2)}


def landmark_spread() -> None:
    """How much of the landmark spread is the predictor's own: the same restorations, measured with more boxes.

    Eight seeds of each face, by the base with all of its noise and with less and less of it let in (`noise_gain` of
    `prefrestore.models.adapter.add_adapter`). With 0.05 they differ by some hundredths of a grey level at most, so what
    a meter still sees there is its own.
    """
    parser = argparse.ArgumentParser(
        description=landmark_spread.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bench", type=Path, default=BENCH, help="folder that holds gt, mild and severe")
    parser.add_argument("--level", choices=["mild", "severe"], default="severe")
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--gains", type=float, nargs="+", default=[1, 0.4, 0.05])
    options = parser.parse_args()
    faces = {s.title: s for s in protocol_sets(PROTOCOLS["bench"], options.bench, limit=options.limit)}[options.level]
    pipeline = load_preset_pipeline("compact", preference=False, face_size="core")
    for gain in options.gains:
        add_adapter(pipeline.transformer, _name(gain), rank=1, alpha=1, targets="input", noise_gain=gain)
    meter, rows, count = LandmarkMeter(), defaultdict(list), 0
    for face in faces.faces:
        box = meter.box(read_photo(face.reference).rgb8())
        if box is None:
            continue
        count += 1
        conditions = pipeline.conditions(pipeline.prepare([read_photo(face.lq).rgb8()])).repeat(options.seeds)
        shape = conditions.lq_latents.shape[1:]
        sources = [torch.Generator().manual_seed(seed) for seed in range(options.seeds)]
        noise = torch.stack([torch.randn(shape, generator=source) for source in sources])
        for gain in options.gains:
            with torch.no_grad(), using_adapter(pipeline.transformer, _name(gain)):
                restored = pipeline.decode(pipeline.sample(conditions, noise)).mul(255).permute(0, 2, 3, 1).numpy()
            rows[gain, "pixel std"].append(pixel_std(restored).mean())
            pictures = restored.round().astype(np.uint8)
            for boxes, shifts in SHIFTS.items():
                points = [meter.steady_points(picture, box, shifts) for picture in pictures]
                rows[gain, boxes].append(landmark_std(points))
    print(f"{options.level}, {count} faces with landmarks, {options.seeds} seeds\n")
    print("| noise gain | pixel std of 255 | " + " | ".join(f"landmark std, {n} boxes" for n in SHIFTS) + " |")
    print("| ---: |" + " ---: |" * (len(SHIFTS) + 1))
    for gain in options.gains:
        cells = [f"{np.mean(rows[gain, key]):.3f}" for key in ("pixel std", *SHIFTS)]
        print(f"| {gain:g} | " + " | ".join(cells) + " |")


def _name(gain: float) -> str:
    return f"gain_{round(1000 * gain)}"  # PEFT allows no dots
