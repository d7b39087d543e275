"""Are damaged faces restored, and sharp or cut ones left alone? Counts of what the rules decide; no model runs.

    python benchmarks/photos.py sharpness DATA [--every N] [--only severe|mild|sharp|made|cut]
    python benchmarks/photos.py sharpness DATA --fit [--every N]     what the limits were chosen from: faces of train

DATA holds ``faces/{train,val}``, ``faces.csv`` and ``bench/{mild,severe}``. Counting: each picture is a photo, and its
largest face counts; with --aligned each picture is one aligned face, so that quality decides alone. The damages of
`DAMAGES` are made here, from every N-th sharp face, by the seed of its number.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from parts.damages import Damage, Image, cut, degraded, faded, jpeg, mosaic, strokes

from prefrestore.faces import align, blend, damage, quality
from prefrestore.faces.align import Floats
from prefrestore.faces.detect import Face, FaceDetector
from prefrestore.pictures.read import as_photo, read_photo
from prefrestore.restoration.find import FoundFace, find_faces, measured_crop
from prefrestore.restoration.options import RestoreOptions
from prefrestore.restoration.rules import decide

CROP = 512  # px; what the compact model is given
DAMAGES: dict[str, Damage] = {
    "blur 3 px, 25 strokes": strokes,
    "mosaic 8 px": mosaic(8),
    "mosaic 12 px": mosaic(12),
    "JPEG quality 5": jpeg(5),
    "JPEG quality 10": jpeg(10),
    "faded to 15 %": faded(0.15, 0.6),
    "dark, 12 %": faded(0.12, 0.02),
}
LEVELS = ("severe", "mild")
CUT_SIDES = (0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55)  # of a picture's side that are cut off
CUT_FROM = 256  # px
CUT_SHARES = (0.0, 0.05, 0.10, 0.15, 0.25, 0.40)
THRESHOLDS = np.arange(0.5, 0.8, 0.02)
PULL = 0.01


@dataclass(frozen=True)
class Known:
    """Stands in for a detector where the face's points are known."""

    face: Face

    def detect(self, rgb: Image) -> list[Face]:
        """The known face."""
        return [self.face]


def largest(pixels: Image, detector: FaceDetector | Known, options: RestoreOptions) -> FoundFace | None:
    """The largest face of a picture."""
    found = find_faces(as_photo(pixels), pixels, detector, CROP, options)  # type: ignore[arg-type]
    return max(found, key=lambda face: face.facts.width) if found else None


def count(name: str, faces: Iterator[Image], detector: FaceDetector, aligned: bool) -> None:
    """Decide about the largest face of each picture, and print the counts."""
    options = RestoreOptions()
    strengths, rules, total = [], Counter[str](), 0
    for pixels in faces:
        total += 1
        face = largest(pixels, detector, RestoreOptions(aligned=aligned))
        if face is not None:
            decision = decide(face.facts, index=0, options=options)
            strengths.append(decision.strength)
            rules[decision.rule] += decision.strength < 1
    restored = sum(value > 0 for value in strengths)
    half = sum(value >= 0.5 for value in strengths)
    told = ", ".join(f"{rule} {number}" for rule, number in rules.most_common() if number)
    print(
        f"| {name} | {total} | {len(strengths)} | {restored} | {half} | {len(strengths) - restored} "
        f"| {restored / max(len(strengths), 1):.1%} | {told} |",
        flush=True,
    )


def count_cut(data: Path, detector: FaceDetector, every: int) -> None:
    """Blurred faces of val in pictures that end inside them, by how much of the face's area is really outside."""
    rows = [row for row in csv.DictReader((data / "faces.csv").open()) if row["split"] == "val"][::every]
    counts: dict[float, Counter[str]] = {least: Counter() for least in CUT_SHARES}
    for row in rows:
        whole = read_photo(data / "faces" / "val" / f"{row['id']}.webp").rgb8()
        points = np.array(row["points"].split(), dtype=np.float64).reshape(5, 2)
        points = align.scale_points(points, CUT_FROM / len(whole))
        whole = np.asarray(cv2.resize(whole, (CUT_FROM, CUT_FROM), interpolation=cv2.INTER_AREA), np.uint8)
        for side in range(4):
            for share in CUT_SIDES:
                edges = [0.0, 0.0, 1.0, 1.0]
                edges[side] = share if side < 2 else 1 - share
                pixels = cut(*edges)(whole, np.random.default_rng(0))
                moved = points - np.round(np.array(edges[:2]) * len(whole))
                matrix = align.estimate_similarity(moved, align.ffhq_template(CROP))
                outside = blend.share_outside(matrix, CROP, pixels.shape[1], pixels.shape[0])
                here = counts[max(least for least in CUT_SHARES if least <= outside)]
                face = largest(pixels, detector, RestoreOptions())
                decision = None if face is None else decide(face.facts, index=0, options=RestoreOptions())
                lost = bool(((moved < 0) | (moved > (pixels.shape[1] - 1, pixels.shape[0] - 1))).any())
                here["pictures"] += 1
                here["a point outside"] += lost
                here["found"] += decision is not None
                here["restored"] += decision is not None and decision.strength > 0
                here["restored fully"] += decision is not None and decision.strength == 1
                here["restored with a point outside"] += decision is not None and decision.strength > 0 and lost
    names = list(counts[0.0])
    print(f"| outside, of the face's area | {' | '.join(names)} |\n| --- |{' --- |' * len(names)}")
    for least, here in counts.items():
        print(f"| {least:.0%} and more | {' | '.join(str(here[name]) for name in names)} |")


def pictures(folder: Path) -> Iterator[Image]:
    """Every picture of a folder as 8-bit RGB."""
    for path in sorted(folder.iterdir()):
        yield read_photo(path).rgb8()


def measures(face: FoundFace, pixels: Image) -> dict[str, float]:
    """What `prefrestore.faces.damage` looks at."""
    crop = measured_crop(pixels, face.matrix, face.crop.shape[0], face.exposure, face.smoothing)
    grey = quality.measured_grey(crop)
    x, y, width, height = (round(value) for value in face.face.box)
    return {
        "edges": quality.edge_ratio(grey),
        "spread": damage.detail_spread(grey),
        "aligned": damage.aligned_edges(grey),
        "finest": damage.finest_detail(grey),
        "natural": damage.natural(grey),
        "crossed": damage.left_of_strokes(grey),
        "blocks": damage.blockiness(cv2.cvtColor(pixels[y : y + height, x : x + width], cv2.COLOR_RGB2GRAY)),
    }


def natural_weights(measured: Mapping[str, Sequence[Mapping[str, float]]]) -> Floats:
    """Logistic regression (Newton's steps) of sharp faces against the bench's levels."""
    kinds = ("sharp", *LEVELS)
    rows = [
        (math.log(row["edges"]), row["spread"], math.log(row["finest"] + 0.1), 1.0)
        for kind in kinds
        for row in measured[kind]
    ]
    found = np.array(rows)
    wanted = np.array([kind == "sharp" for kind in kinds for _ in measured[kind]], dtype=np.float64)
    weights = np.zeros(found.shape[1])
    for _ in range(100):
        likely = 1 / (1 + np.exp(-found @ weights))
        # A weak pull towards 0, so that faces that can be told apart without an error do not send it to infinity.
        slope = found.T @ (wanted - likely) - PULL * weights
        curve = (found * (likely * (1 - likely))[:, None]).T @ found + PULL * np.eye(len(weights))
        weights += np.linalg.solve(curve, slope)
    return weights


def fit(data: Path, every: int) -> None:
    """Print percentiles of each measure, and what each threshold leaves alone, for faces of train."""
    rows = [row for row in csv.DictReader((data / "faces.csv").open()) if row["split"] == "train"]
    kinds: dict[str, Damage] = DAMAGES | {level: degraded(f"bench-{level}") for level in LEVELS}
    measured: dict[str, list[dict[str, float]]] = defaultdict(list)
    decided: dict[str, list[list[bool]]] = defaultdict(list)
    for number, row in enumerate([row for row in rows if row["defect"] == "none"][::every]):
        sharp = read_photo(data / "faces" / "train" / f"{row['id']}.webp").rgb8()
        points = np.array(row["points"].split(), dtype=np.float64).reshape(5, 2)
        # Both of the bench's levels, and one of the other damages in turn.
        for kind in ("sharp", *LEVELS, list(DAMAGES)[number % len(DAMAGES)]):
            pixels = sharp if kind == "sharp" else kinds[kind](sharp, np.random.default_rng(number))
            side = len(pixels)
            box = (0.22 * side, 0.22 * side, 0.56 * side, 0.7 * side)  # as the detector draws it in an aligned face
            known = Known(Face(box, align.scale_points(points, side / len(sharp)), 1.0))
            face = largest(pixels, known, RestoreOptions())
            assert face is not None
            measured[kind].append(measures(face, pixels))
            each = [RestoreOptions(sharp_enough=float(value)) for value in THRESHOLDS]
            decided[kind].append([decide(face.facts, index=0, options=options).strength == 0 for options in each])
    names = list(measured["sharp"][0])
    print(f"| 5th, 50th, 95th percentile | faces | {' | '.join(names)} |\n| --- | --- |{' --- |' * len(names)}")
    for kind, values in measured.items():
        cells = []
        for name in names:
            found = np.percentile([value[name] for value in values], [5, 50, 95])
            cells.append(" ".join(f"{value:.3f}" for value in found))
        print(f"| {kind} | {len(values)} | {' | '.join(cells)} |")
    print(f"\n| left alone | {' | '.join(f'{value:.2f}' for value in THRESHOLDS)} |")
    print(f"| --- |{' --- |' * len(THRESHOLDS)}")
    for kind, each_of in decided.items():
        print(f"| {kind} | {' | '.join(f'{share:.1%}' for share in np.mean(each_of, axis=0))} |")
    print(f"\nWeights of `damage.NATURAL`: {', '.join(f'{weight:.2f}' for weight in natural_weights(measured))}")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--every", type=int, default=8, help="Take every N-th sharp face.")
    parser.add_argument("--only", choices=(*LEVELS, "sharp", "made", "cut"), help="One part of the table.")
    parser.add_argument("--aligned", action="store_true", help="Take each picture as one aligned face.")
    parser.add_argument("--fit", action="store_true", help="Measure faces of train.")
    options = parser.parse_args()
    if options.fit:
        fit(options.data, options.every)
        return
    detector = FaceDetector()
    if options.only == "cut":
        count_cut(options.data, detector, options.every)
        return
    sharp = options.data / "faces" / "val"
    print("| faces | pictures | found | restored | at half strength or more | left alone | restored | held back by |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for level in LEVELS:
        if options.only in (None, level):
            count(f"bench, {level}", pictures(options.data / "bench" / level), detector, options.aligned)
    if options.only in (None, "sharp"):
        count("sharp, as they are", pictures(sharp), detector, options.aligned)
    for name, make in DAMAGES.items() if options.only in (None, "made") else ():
        made = (
            make(read_photo(path).rgb8(), np.random.default_rng(number))
            for number, path in enumerate(sorted(sharp.iterdir())[:: options.every])
        )
        count(name, made, detector, options.aligned)
