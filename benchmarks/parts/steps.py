"""Does a flow gain from its steps, and do its seeds differ? The newer faces of val, without the last octave.

    python benchmarks/preference.py steps --faces DATA --base BASE --limit 10

BASE is made where it is not there yet: the bundled weights with the small denoiser of ``benchmarks/flow_base``, which
was trained by the flow's loss alone (docs/notes/preference.md says how). `train preference --model BASE` aligns it. Any
other pipeline folder is measured as it is.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch
from parts.newer_faces import make_pairs
from parts.systems import as_array, names_of, read, sample
from torch import Tensor

from prefrestore.files.weights import HASH_FILE, bundled_folder, verify, write_hashes
from prefrestore.metrics.lpips import LPIPS
from prefrestore.metrics.pixels import psnr
from prefrestore.metrics.spread import lpips_distances, pairwise_mean, pixel_std
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.training.images import to_signed

SMALL = Path(__file__).parents[1] / "flow_base"


def make_base(folder: Path) -> None:
    """The bundled weights, without their adapter and last octave, and over them the small denoiser."""
    verify(SMALL)
    without = shutil.ignore_patterns("preference", "last_octave", "transformer", "connectors")
    shutil.copytree(bundled_folder("compact"), folder, ignore=without)
    shutil.copytree(SMALL, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("preset.json", HASH_FILE))
    write_hashes(folder)


@torch.no_grad()
def main() -> None:
    """LPIPS and PSNR against the truth, and between seeds LPIPS and the standard deviation, by steps of the flow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, help="folder of the data card")
    parser.add_argument("--base", type=Path, default=Path("flow_base"), help="the pipeline folder")
    parser.add_argument("--pairs", type=Path, default=Path("newer_faces"), help="where the pairs are kept")
    parser.add_argument("--level", default="severe")
    parser.add_argument("--limit", type=int, help="a fixed random sample of so many faces")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8])
    options = parser.parse_args()
    if not options.base.exists():
        make_base(options.base)
    pipeline = load_preset_pipeline("compact", folder=options.base, preference=False, face_size="core")
    make_pairs(options.faces, options.pairs, [options.level])
    names = sample(names_of(options.pairs / "gt", [options.pairs / options.level]), options.limit)
    lpips = LPIPS("alex")
    found: dict[int, list[tuple[float, float, float, float]]] = {steps: [] for steps in options.steps}
    for place, name in enumerate(names):
        truth = as_array(read(options.pairs / "gt" / name))
        conditions = pipeline.conditions(pipeline.prepare(read(options.pairs / options.level / name)))
        shape = (options.seeds, *conditions.lq_latents.shape[1:])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(place))
        told = conditions.repeat(options.seeds)
        for steps in options.steps:
            made = pipeline.decode(pipeline.sample(told, noise, steps, fidelity=0.0), told)
            found[steps].append(_figures(made, truth, lpips))
    print("| steps | LPIPS | pairwise LPIPS | pixel std of 255 | PSNR |\n| ---: | ---: | ---: | ---: | ---: |")
    for steps, rows in found.items():
        far, apart, std, ratio = np.mean(rows, axis=0)
        print(f"| {steps} | {far:.3f} | {apart:.3f} | {std:.2f} | {ratio:.2f} |")


def _figures(made: Tensor, truth: np.ndarray, lpips: LPIPS) -> tuple[float, float, float, float]:
    pictures = made.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    far = lpips(to_signed(pictures), to_signed(np.stack([truth] * len(pictures)))).mean().item()
    apart = pairwise_mean(lpips_distances(lpips, made * 2 - 1))
    ratio = float(np.mean([psnr(picture, truth) for picture in pictures]))
    return far, apart, float(pixel_std(made.permute(0, 2, 3, 1).numpy() * 255).mean()), ratio
