"""Contact sheets of what photos suffer from, before and after, of many people: to be looked at.

    python benchmarks/photos.py faults DATA OUT [--kinds scratched cut ...] [--people 8]

DATA holds ``faces/val``. Each kind of damage is done to other people, at 256 px; every face is restored as a photo,
whatever the rules say (``--faces all``), and what they would have said is printed.
"""

from __future__ import annotations

import argparse
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
from parts.damages import Damage, Image, cut, drawn, faded, jpeg, mosaic, noisy, sketched, strokes
from parts.sheets import real_sheet
from PIL import Image as Pictures

from prefrestore.faces.detect import FaceDetector
from prefrestore.pictures.read import read_photo
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.restoration.find import find_faces
from prefrestore.restoration.options import RestoreOptions
from prefrestore.restoration.photo import restore_photo
from prefrestore.restoration.rules import decide

SIDE = 256  # px


KINDS: dict[str, tuple[Damage, ...]] = {
    "scratched": (strokes,),
    "mosaic": (mosaic(8), mosaic(12)),
    "jpeg": (jpeg(5), jpeg(10)),
    "faded": (faded(0.15, 0.6), faded(0.3, 0.45)),
    "dark": (faded(0.12, 0.02), faded(0.25, 0.02)),
    "noisy": (noisy(25), noisy(50)),
    # Half a face on either side; without its forehead, without its chin.
    "cut": (cut(0, 0, 0.5, 1), cut(0.45, 0, 1, 1), cut(0, 0.36, 1, 1), cut(0, 0, 1, 0.62)),
    "eyeless": (cut(0, 0.52, 1, 1), cut(0, 0.56, 1, 1)),
    "drawings": (drawn, sketched),
}


def square(pixels: Image) -> Pictures.Image:
    """A picture on a square of grey, so that a sheet shows where it ends."""
    side = max(pixels.shape[:2])
    ground = Pictures.new("RGB", (side, side), (128, 128, 128))
    ground.paste(Pictures.fromarray(pixels), ((side - pixels.shape[1]) // 2, (side - pixels.shape[0]) // 2))
    return ground


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--people", type=int, default=8, help="of each kind")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    pipeline, detector = load_preset_pipeline("compact"), FaceDetector()
    every = sorted((options.data / "faces" / "val").iterdir())
    for number, kind in enumerate(options.kinds):
        shown = []
        paths = every[number :: len(every) // options.people][: options.people]
        for person, (path, damage) in enumerate(zip(paths, cycle(KINDS[kind]), strict=False)):
            sharp = cv2.resize(read_photo(path).rgb8(), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            pixels = damage(sharp, np.random.default_rng([number, person]))
            result = restore_photo(pixels, pipeline, options=RestoreOptions(faces="all"), detector=detector)
            found = find_faces(result.before, pixels, detector, pipeline.face_size, RestoreOptions())
            rules = [decide(face.facts, index=index, options=RestoreOptions()) for index, face in enumerate(found)]
            told = "; ".join(f"{rule.rule} {rule.strength:.2f}" for rule in rules) or "no face found"
            warned = f" ({', '.join(result.warnings)})" if result.warnings else ""
            print(f"{kind} {path.stem}: {told}{warned}", flush=True)
            shown.append((square(pixels), square(result.photo.rgb8())))
        real_sheet(shown).save(options.out / f"{kind}.png")
