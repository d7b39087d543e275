"""Is the picture wrong where the uncertainty map is hot? Predicted standard deviation against actual error.

    python benchmarks/calibration.py --limit 16 --plot calibration.png
    python benchmarks/calibration.py --truth sharp/ --input blurred/ --samples 8

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from peers import sample
from PIL import Image, ImageDraw, ImageFont
from quality import BENCH, names_of, read
from rich.console import Console
from rich.table import Table

from prefrestore.errors import PrefRestoreError
from prefrestore.faces.blend import face_mask
from prefrestore.metrics.spread import pixel_std
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.restoration.uncertainty.calibration import rank_correlation, reliability
from prefrestore.restoration.uncertainty.heatmap import SCALE, smooth_std
from prefrestore.restoration.uncertainty.sampling import draw

Map = NDArray[np.float32]
WAYS = ("seeds", "views", "edges")
COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167))  # Okabe and Ito's, told apart by everyone


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
    return float(np.sqrt(np.square(values).mean()))


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
    side, edge = 640, 80
    most = 1.05 * max(value for pairs in series.values() for pair in pairs for value in pair)
    picture = Image.new("RGB", (side + 2 * edge, side + 2 * edge), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(18)

    def at(x: float, y: float) -> tuple[float, float]:
        return edge + side * x / most, edge + side * (1 - y / most)

    for k in range(6):
        value = most * k / 5
        pen.line([at(value, 0), at(value, most)], fill=(225, 225, 225))
        pen.line([at(0, value), at(most, value)], fill=(225, 225, 225))
        x, y = at(value, 0)
        pen.text((x, y + 8), f"{value:.3f}", fill="black", font=font, anchor="mt")
        x, y = at(0, value)
        pen.text((x - 8, y), f"{value:.3f}", fill="black", font=font, anchor="rm")
    pen.line([at(0, 0), at(most, most)], fill=(120, 120, 120), width=2)
    below, above = (edge + side / 2, 2 * edge + side - 12), (edge, edge - 14)
    pen.text(below, "predicted standard deviation", fill="black", font=font, anchor="mb")
    pen.text(above, "actual error, root mean square; grey: calibrated", fill="black", font=font, anchor="lb")
    for place, (name, pairs) in enumerate(series.items()):
        colour = COLOURS[place % len(COLOURS)]
        points = [at(*pair) for pair in pairs]
        pen.line(points, fill=colour, width=3)
        for x, y in points:
            pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour)
        pen.text((edge + side - 10, edge + side - 30 - 24 * place), name, fill=colour, font=font, anchor="rm")
    picture.save(path)


def measure(options: argparse.Namespace, console: Console) -> None:
    pipeline = load_preset_pipeline("compact", folder=options.model)
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
        series |= {f"{folder.name}, {way}": reliability(*pooled(faces, way, mask)) for way in ("views", "seeds")}
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
        measure(parse(), console)
    except PrefRestoreError as error:
        console.print(f"error: {error}", markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
