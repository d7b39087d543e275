"""How much of the landmark spread is the predictor's own: the same restorations, measured with more and more boxes.

    python benchmarks/landmark_spread.py

Eight seeds of each face, by the base with all of its noise and with less and less of it let in (`noise_gain` of
`prefrestore.models.adapter.add_adapter`). With 0.05 they differ by some hundredths of a grey level at most, so what
a meter still sees there is its own.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from prefrestore.evaluation.protocols import PROTOCOLS, protocol_sets
from prefrestore.metrics.landmarks import LandmarkMeter
from prefrestore.metrics.spread import landmark_std, pixel_std
from prefrestore.models.adapter import add_adapter, using_adapter
from prefrestore.pictures.read import read_photo
from prefrestore.pipeline.build import load_preset_pipeline

BENCH = Path(__file__).resolve().parents[2] / "shared" / "data" / "bench"
SHIFTS = {"1": (0,), "9": (-6, 0, 6), "25": range(-6, 7, 3), "81": range(-12, 13, 3), "169": range(-12, 13, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, default=BENCH, help="folder that holds gt, mild and severe")
    parser.add_argument("--level", choices=["mild", "severe"], default="severe")
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--gains", type=float, nargs="+", default=[1, 0.4, 0.05])
    options = parser.parse_args()
    faces = {s.title: s for s in protocol_sets(PROTOCOLS["bench"], options.bench, limit=options.limit)}[options.level]
    pipeline = load_preset_pipeline("compact", preference=False)
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


if __name__ == "__main__":
    main()
