"""Are damaged faces restored and sharp ones left alone? Counts of what the rules decide; no model runs.

    python benchmarks/sharpness.py DATA [--every N] [--only severe|mild|sharp|made]

DATA holds ``bench/{mild,severe}`` and ``faces/val``, aligned or not: each picture is a photo, and its largest face
counts. Strokes, mosaics and JPEG blocks are made here, from every N-th sharp face, by the seed of its number.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from prefrestore.degrade.synthetic import jpeg
from prefrestore.faces.detect import FaceDetector
from prefrestore.pictures.read import as_photo, read_photo
from prefrestore.restoration.find import find_faces
from prefrestore.restoration.options import RestoreOptions
from prefrestore.restoration.rules import decide

Image = NDArray[np.uint8]
Damage = Callable[[Image, np.random.Generator], Image]

CROP = 256  # px; the compact model's


def strokes(face: Image, rng: np.random.Generator) -> Image:
    """A blur of 3 px at 256, under 25 straight scratches."""
    unit = len(face) / 256
    out = np.ascontiguousarray(cv2.GaussianBlur(face, (0, 0), 3 * unit))
    for _ in range(25):
        x0, y0, x1, y1 = (int(value) for value in rng.integers(0, len(face), 4))
        level = int(rng.choice([20, 230, 255]))
        cv2.line(out, (x0, y0), (x1, y1), (level,) * 3, int(rng.integers(1, 3)))
    return out


def mosaic(cell: int) -> Damage:
    """Cells of so many px."""

    def make(face: Image, rng: np.random.Generator) -> Image:
        count = max(1, round(len(face) / cell))
        small = cv2.resize(face, (count, count), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, face.shape[1::-1], interpolation=cv2.INTER_NEAREST), np.uint8)

    return make


def stored(quality: int) -> Damage:
    """A JPEG of this quality."""
    return lambda face, rng: jpeg(face, quality)


DAMAGES: dict[str, Damage] = {
    "blur 3 px, 25 strokes": strokes,
    "mosaic 8 px": mosaic(8),
    "mosaic 12 px": mosaic(12),
    "JPEG quality 5": stored(5),
    "JPEG quality 10": stored(10),
}


def pictures(folder: Path) -> Iterator[Image]:
    """Every picture of a folder as 8-bit RGB."""
    for path in sorted(folder.iterdir()):
        yield read_photo(path).rgb8()


def count(name: str, faces: Iterator[Image], detector: FaceDetector) -> None:
    """Decide about the largest face of each picture, and print the counts."""
    options, strengths, rules, total = RestoreOptions(), [], Counter[str](), 0
    for pixels in faces:
        total += 1
        found = find_faces(as_photo(pixels), pixels, detector, CROP, options)
        if found:
            largest = max(found, key=lambda face: face.facts.width)
            decision = decide(largest.facts, index=0, options=options)
            strengths.append(decision.strength)
            rules[decision.rule] += decision.strength < 1
    found_ones = len(strengths)
    restored = sum(value > 0 for value in strengths)
    half = sum(value >= 0.5 for value in strengths)
    told = ", ".join(f"{rule} {number}" for rule, number in rules.most_common() if number)
    print(
        f"| {name} | {total} | {found_ones} | {restored} | {half} | {found_ones - restored} "
        f"| {restored / max(found_ones, 1):.1%} | {told} |",
        flush=True,
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--every", type=int, default=8, help="Damage every N-th sharp face.")
    parser.add_argument("--only", choices=("severe", "mild", "sharp", "made"), help="One part of the table.")
    options = parser.parse_args()
    detector = FaceDetector()
    sharp = options.data / "faces" / "val"

    def asked(part: str) -> bool:
        return options.only in (None, part)

    print("| faces | pictures | found | restored | at half strength or more | left alone | restored | held back by |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for level in ("severe", "mild"):
        if asked(level):
            count(f"bench, {level}", pictures(options.data / "bench" / level), detector)
    if asked("sharp"):
        count("sharp, as they are", pictures(sharp), detector)
    for name, damage in DAMAGES.items() if asked("made") else ():
        made = (
            damage(read_photo(path).rgb8(), np.random.default_rng(number))
            for number, path in enumerate(sorted(sharp.iterdir())[:: options.every])
        )
        count(name, made, detector)


if __name__ == "__main__":
    main()
