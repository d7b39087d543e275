"""The LQ encoder alone: how near does it bring the LQ latents to the clean ones?

    python benchmarks/posterior_mean.py
    python benchmarks/posterior_mean.py --model PIPELINE_FOLDER

Prints the mean square error of the LQ latents, per number, before and after the LQ encoder; the latents of all faces
together have a variance of about one.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from prefrestore.models.texture.lq_encoder import lq_latents
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.pipeline.pipeline import PrefRestorePipeline

BENCH = Path(__file__).resolve().parents[2] / "shared" / "data" / "bench"


@torch.no_grad()
def latents(pipeline: PrefRestorePipeline, folder: Path, *, corrected: bool) -> Tensor:
    """Of every face of the folder, (N,C,h,w)."""
    encoder = pipeline.lq_encoder if corrected else None
    found = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            found.append(lq_latents(pipeline.autoencoder, encoder, pipeline.prepare(image.convert("RGB"))))
    return torch.cat(found)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, default=BENCH, help="folder with gt, mild and severe")
    parser.add_argument("--model", type=Path, help="a pipeline folder in place of the bundled weights")
    options = parser.parse_args()
    pipeline = load_preset_pipeline("compact", folder=options.model)
    clean = latents(pipeline, options.bench / "gt", corrected=False)
    for level in ("mild", "severe"):
        before, after = (
            F.mse_loss(latents(pipeline, options.bench / level, corrected=corrected), clean).item()
            for corrected in (False, True)
        )
        Console().print(f"{level}: {before:.4f} before, {after:.4f} after the LQ encoder (n = {len(clean)})")


if __name__ == "__main__":
    main()
