"""The autoencoder alone: decode(encode(face)) against the face.

    python benchmarks/round_trip.py --faces ../shared/data/bench/gt
    python benchmarks/round_trip.py --faces FOLDER --model PIPELINE_FOLDER

Prints the mean PSNR (dB), the mean identity cosine, and how many faces were measured.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from prefrestore.evaluation.evaluator import Evaluator
from prefrestore.pipeline.build import load_preset_pipeline

FACES = Path(__file__).resolve().parents[2] / "shared" / "data" / "bench" / "gt"


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, default=FACES, help="folder of aligned faces")
    parser.add_argument("--model", type=Path, help="a pipeline folder in place of the bundled weights")
    options = parser.parse_args()
    pipeline = load_preset_pipeline("compact", folder=options.model)
    evaluator = Evaluator()
    rows = []
    for path in sorted(path for path in options.faces.iterdir() if path.suffix in (".png", ".webp", ".jpg")):
        with Image.open(path) as image:
            face = image.convert("RGB").resize((pipeline.face_size, pipeline.face_size), Image.Resampling.BOX)
        images = pipeline.prepare(face)
        with torch.no_grad():
            latents = pipeline.autoencoder.encode(images).latent * pipeline.autoencoder.config.scaling_factor
            rebuilt = pipeline.decode(latents)[0].permute(1, 2, 0).numpy()
        rows.append(evaluator.measure(path.stem, np.asarray(face), (rebuilt * 255).round().astype(np.uint8)))
    for metric in ("psnr", "identity", "lpips_alex", "landmarks"):
        values = [row[metric] for row in rows if row.get(metric) is not None]
        if values:
            Console().print(f"{metric}: {np.mean(values):.4f} (n = {len(values)})")


if __name__ == "__main__":
    main()
