"""How alike are degraded faces to their own originals, by quality? What `prefrestore.restoration.likeness` asks for.

    python benchmarks/likeness.py DATA

DATA holds ``bench/{gt,mild,severe}``: aligned faces, paired by name.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from prefrestore.faces.identity import IdentityEmbedder, cosine
from prefrestore.faces.quality import face_quality
from prefrestore.pictures.read import read_photo
from prefrestore.restoration.likeness import least_likeness

EDGES = (0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.55, 0.9)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    bench = parser.parse_args().data / "bench"
    embedder = IdentityEmbedder()
    measured = []
    for path in sorted((bench / "gt").iterdir()):
        original = embedder.embed(read_photo(path).rgb8())
        for level in ("mild", "severe"):
            degraded = read_photo(bench / level / path.name).rgb8()
            measured.append((face_quality(degraded), cosine(original, embedder.embed(degraded))))
    quality, alike = np.array(measured).T
    print("| quality | faces | 5 of 100 are below | median | asked for in the middle |")
    print("| --- | --- | --- | --- | --- |")
    for low, high in zip(EDGES, EDGES[1:], strict=False):
        chosen = (quality >= low) & (quality < high)
        if chosen.any():
            fifth, median = np.percentile(alike[chosen], [5, 50])
            asked = least_likeness((low + high) / 2)
            print(f"| {low} to {high} | {chosen.sum()} | {fifth:.2f} | {median:.2f} | {asked:.2f} |")
    below = alike < [least_likeness(value) for value in quality]
    print(f"\n{below.sum()} of {len(below)} degraded faces are less alike to their originals than is asked for.")


if __name__ == "__main__":
    main()
