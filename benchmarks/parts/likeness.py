"""How alike are degraded faces to their own originals, by clarity? What `prefrestore.restoration.likeness` asks for.

    python benchmarks/photos.py likeness DATA --fit [--every N]  faces of train, degraded here: what the limits are from
    python benchmarks/photos.py likeness DATA                    the bench's faces, on which nothing was chosen
    python benchmarks/photos.py likeness DATA --restore N        N of them a level restored: which ones it holds back

DATA holds ``bench/{gt,mild,severe}``, ``faces/train`` and ``faces.csv``: aligned faces, paired by name.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from parts.damages import Image, degraded

from prefrestore.faces.detect import FaceDetector
from prefrestore.faces.identity import IdentityEmbedder, cosine
from prefrestore.pictures.read import as_photo, read_photo
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.restoration.find import find_faces, uint8
from prefrestore.restoration.likeness import CLARITY, least_likeness
from prefrestore.restoration.options import RestoreOptions
from prefrestore.restoration.photo import restore_photo

SIDE = 256  # px; of the faces
CROP = 512  # px; what the compact model is given of them
LEVELS = ("mild", "severe")
EDGES = (0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 1)


@dataclass(frozen=True)
class Measure:
    """The clarity of an aligned picture and its likeness, as restoring a photo sees them."""

    detector: FaceDetector
    embedder: IdentityEmbedder

    def __call__(self, pixels: Image) -> tuple[float, Any]:
        """Clarity, 0..1, and the vector of the face."""
        (face,) = find_faces(as_photo(pixels), pixels, self.detector, CROP, RestoreOptions(aligned=True))
        return face.facts.clarity, self.embedder.embed(uint8(face.shown), face.points)


def of_train(data: Path, every: int) -> Iterator[tuple[Image, Image]]:
    """Originals of every N-th flawless face of train, and both levels of each."""
    rows = [row for row in csv.DictReader((data / "faces.csv").open()) if row["split"] == "train"]
    for number, row in enumerate([row for row in rows if row["defect"] == "none"][::every]):
        whole = read_photo(data / "faces" / "train" / f"{row['id']}.webp").rgb8()
        original = np.asarray(cv2.resize(whole, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)
        for level in LEVELS:
            yield original, degraded(f"bench-{level}")(original, np.random.default_rng(number))


def of_bench(data: Path) -> Iterator[tuple[Image, Image]]:
    """The bench's pairs."""
    for path in sorted((data / "bench" / "gt").iterdir()):
        for level in LEVELS:
            yield read_photo(path).rgb8(), read_photo(data / "bench" / level / path.name).rgb8()


def by_clarity(pairs: Iterator[tuple[Image, Image]], measure: Measure) -> None:
    """Print how alike degraded faces are, and how many are less alike than is asked for."""
    measured = []
    for original, worse in pairs:
        clarity, vector = measure(worse)
        measured.append((clarity, cosine(measure(original)[1], vector)))
    clarity, alike = np.array(measured).T
    print("| clarity | faces | 5 of 100 are below | median | asked for in the middle |")
    print("| --- | --- | --- | --- | --- |")
    for low, high in zip(EDGES, EDGES[1:], strict=False):
        chosen = (clarity >= low) & (clarity < high)
        if chosen.any():
            fifth, median = np.percentile(alike[chosen], [5, 50])
            asked = least_likeness(float(clarity[chosen].mean()))
            print(f"| {low} to {high} | {chosen.sum()} | {fifth:.2f} | {median:.2f} | {asked:.2f} |")
    below = alike < [least_likeness(value) for value in clarity]
    print(f"\n{below.sum()} of {len(below)} degraded faces are less alike to their originals than is asked for.")
    # The fifth percentile of the faces nearest in clarity, rising, at the points between which a line is drawn.
    nearest = [np.argsort(np.abs(clarity - knot), kind="stable")[: max(20, len(clarity) // 10)] for knot in CLARITY]
    knots = np.maximum.accumulate([max(float(np.percentile(alike[near], 5)), 0.0) for near in nearest])
    told = ", ".join(f"{knot:g}: {value:.2f}" for knot, value in zip(CLARITY, knots, strict=True))
    print(f"Fifth percentile of the tenth of the faces that is nearest in clarity: {told}")


def held_back(data: Path, limit: int, measure: Measure) -> None:
    """Restore faces with and without ``keep_likeness``; print whom it holds back and what becomes of them."""
    pipeline = load_preset_pipeline("compact")
    print("| level | faces | held back | SFace to the original without | with | of those held back: without | with |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    names = [path.name for path in sorted((data / "bench" / "gt").iterdir())]
    for level in LEVELS:
        rows, lowered = [], []
        for name in names[:: max(len(names) // limit, 1)][:limit]:
            original = measure(read_photo(data / "bench" / "gt" / name).rgb8())[1]
            pixels = read_photo(data / "bench" / level / name).rgb8()
            results = [
                restore_photo(pixels, pipeline, options=RestoreOptions(aligned=True, keep_likeness=kept))
                for kept in (False, True)
            ]
            rows.append([cosine(original, measure(result.photo.rgb8())[1]) for result in results])
            lowered.append(results[1].faces[0].rule == "likeness")
        means = [f"{value:.3f}" for value in np.mean(rows, axis=0)]
        chosen = np.array(rows)[np.array(lowered)]
        told = [f"{value:.3f}" for value in chosen.mean(axis=0)] if len(chosen) else ["", ""]
        print(f"| {level} | {len(rows)} | {sum(lowered)} | {' | '.join([*means, *told])} |", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--fit", action="store_true", help="Measure faces of train.")
    parser.add_argument("--every", type=int, default=12, help="With --fit: take every N-th face.")
    parser.add_argument("--restore", type=int, metavar="N", help="Restore N faces a level.")
    options = parser.parse_args()
    measure = Measure(FaceDetector(), IdentityEmbedder())
    if options.restore:
        held_back(options.data, options.restore, measure)
    else:
        by_clarity(of_train(options.data, options.every) if options.fit else of_bench(options.data), measure)
