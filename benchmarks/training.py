"""Training: curves and hours of runs; how near the LQ encoder comes to clean latents; which design learns fastest.

    python benchmarks/training.py curves OUT/runs/encoder OUT/runs/fidelity --batch 8 --plot curves.png
    python benchmarks/training.py posterior-mean
    python benchmarks/training.py posterior-mean --model PIPELINE_FOLDER
    python benchmarks/training.py designs --pairs FOLDER --minutes 15 --mixed-precision bf16

Curves are the losses that a run wrote down (``log.jsonl``); hours are what its samples a second come to.

Designs are compared at equal time of the processor, each from nothing, on the same cached pairs. FOLDER has ``lq.npy``,
``targets.npy``, ``lq_latents.npy`` and ``clean_latents.npy``, what `prefrestore train encoder` keeps in
``runs/encoder_pairs``. Printed are, for each design, its parameters, samples a second and samples seen, and the latent
error, LPIPS and dlib's distance of held-out faces (``--held-out``: a folder with ``gt``, ``mild`` and ``severe``).
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from parts.designs import designs
from parts.systems import BENCH, command
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from prefrestore.models.texture.lq_encoder import lq_latents
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.pipeline.pipeline import PrefRestorePipeline


@torch.no_grad()
def latents_of(pipeline: PrefRestorePipeline, folder: Path, *, corrected: bool) -> Tensor:
    """Of every face of the folder, (N,C,h,w)."""
    encoder = pipeline.lq_encoder if corrected else None
    found = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            found.append(lq_latents(pipeline.autoencoder, encoder, pipeline.prepare(image.convert("RGB"))))
    return torch.cat(found)


def curves() -> None:
    """What finished and unfinished runs wrote down: a table, and a plot of each loss against the samples seen."""
    parser = argparse.ArgumentParser(description=curves.__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders that hold a run's log.jsonl")
    parser.add_argument("--batch", type=int, required=True, help="samples a step")
    parser.add_argument("--plot", type=Path, help="PNG or SVG (matplotlib, of the extra eval)")
    options = parser.parse_args()
    table = Table(title="losses: mean of the first tenth -> mean of the last")
    for title in ("run", "steps", "samples", "hours", "samples/s", "waiting for data", "losses"):
        table.add_column(title, justify="left" if title == "losses" else "right")
    logs = {}
    for run in options.runs:
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        logs[run.name] = log = {key: np.array([line[key] for line in lines]) for key in lines[0]}
        samples = np.diff(log["step"], prepend=0) * options.batch
        seconds, tenth = samples / log["samples_per_second"], max(1, len(lines) // 10)
        said = [f"{k} {log[k][:tenth].mean():.3f} -> {log[k][-tenth:].mean():.3f}" for k in log if k not in NO_LOSSES]
        hours, speed = f"{seconds.sum() / 3600:.2f}", f"{samples.sum() / seconds.sum():.2f}"
        waiting = f"{np.average(log['waiting_for_data'], weights=seconds):.1%}"
        table.add_row(run.name, str(log["step"][-1]), str(samples.sum()), hours, speed, waiting, ", ".join(said))
    Console(width=200).print(table)
    if options.plot:
        plot(logs, options.batch, options.plot)


NO_LOSSES = ("step", "samples_per_second", "waiting_for_data", "gradient_norm", "loss")


def plot(logs: dict[str, dict[str, np.ndarray]], batch: int, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(logs), 3.6), layout="constrained")
    for axes, (name, log) in zip(figure.subplots(1, len(logs), squeeze=False)[0], logs.items(), strict=True):
        parts = np.array_split(np.arange(len(log["step"])), min(40, len(log["step"])))
        for key in (key for key in log if key not in NO_LOSSES):
            means = [log[key][part].mean() for part in parts]
            axes.plot([batch * log["step"][part].mean() for part in parts], means, label=key)
        axes.set(title=name, xlabel="samples", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def posterior_mean() -> None:
    """The LQ encoder alone: the latents' mean square error, per number, before and after it.

    The latents of all faces together have a variance of about one.
    """
    parser = argparse.ArgumentParser(description=posterior_mean.__doc__)
    parser.add_argument("--bench", type=Path, default=BENCH, help="folder with gt, mild and severe")
    parser.add_argument("--model", type=Path, help="a pipeline folder in place of the bundled weights")
    options = parser.parse_args()
    pipeline = load_preset_pipeline("compact", folder=options.model, face_size="core")
    clean = latents_of(pipeline, options.bench / "gt", corrected=False)
    for level in ("mild", "severe"):
        before, after = (
            F.mse_loss(latents_of(pipeline, options.bench / level, corrected=corrected), clean).item()
            for corrected in (False, True)
        )
        Console().print(f"{level}: {before:.4f} before, {after:.4f} after the LQ encoder (n = {len(clean)})")


if __name__ == "__main__":
    sys.exit(command(__doc__, curves=curves, designs=designs, posterior_mean=posterior_mean))
