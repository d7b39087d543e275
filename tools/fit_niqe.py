"""Fit NIQE's model of natural statistics to the sharp faces of a folder at one size, and write it as npz."""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from prefrestore.errors import InvalidInputError
from prefrestore.metrics.niqe import MODEL_FILES, fit_model


def main(arguments: list[str] | None = None) -> int:
    """Parse, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="by default the name that the package looks for")
    parser.add_argument("--size", type=int, choices=sorted(MODEL_FILES), default=256, help="of the faces, px")
    parser.add_argument("--least", type=int, default=400, help="leave out smaller pictures (px)")
    parser.add_argument("--table", type=Path, help="faces.csv: leave out synthetic and defective faces")
    options = parser.parse_args(arguments)
    wanted: set[str] | None = None
    if options.table:
        with options.table.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        wanted = {row["id"] for row in rows if row["synthetic"] == "0" and row["defect"] == "none"}
    pictures, size = [], (options.size, options.size)
    output = options.output or Path(MODEL_FILES[options.size])
    for path in sorted(options.folder.iterdir()):
        if wanted is not None and path.stem not in wanted:
            continue
        with Image.open(path) as image:
            if min(image.size) >= options.least:
                pictures.append(np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS)))
    if not pictures:
        raise InvalidInputError(f"{options.folder} holds no picture of {options.least} px or more.")
    model = fit_model(pictures)
    np.savez_compressed(
        output, mean=model.mean.astype(np.float32), covariance=model.covariance.astype(np.float32)
    )
    sys.stdout.write(f"{output}: fitted to {len(pictures)} pictures\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
