"""Training: curves and hours of runs; how near the LQ encoder comes to clean latents; which design learns fastest.

    python benchmarks/training.py curves OUT/runs/encoder OUT/runs/fidelity --batch 8 --plot curves.png
    python benchmarks/training.py posterior-mean
    python benchmarks/training.py posterior-mean --model PIPELINE_FOLDER
    python benchmarks/training.py designs --pairs FOLDER --held-out PAIRS --minutes 15

Curves are the losses that a run wrote down (``log.jsonl``); hours are what its samples a second come to.

Designs are compared at equal wall time, each from nothing, on the same cached pairs. FOLDER has ``lq.npy``,
``lq_latents.npy`` and ``clean_latents.npy``, what `prefrestore train encoder` keeps in ``runs/encoder_pairs``. PAIRS
has ``gt``, ``mild`` and ``severe`` (`prefrestore degrade`). Printed are, for each design, its parameters, samples a
second and samples seen, and the latent error of held-out faces.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from parts.systems import BENCH, command
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.models.texture.lq_encoder import LatentEncoder, lq_latents
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.pipeline.pipeline import PrefRestorePipeline
from prefrestore.training.images import to_signed


class UShaped(LatentEncoder):
    """Most of the work on 8 x 8 tokens of twice the width, where a layer costs what it does on 16 x 16 of the width."""

    def __init__(self, width: int = 256, layers: int = 6, **settings: int) -> None:
        super().__init__(width=width, layers=2, heads=width // 64, **settings)
        inner = LatentEncoder(width=2 * width, layers=layers, heads=width // 32)
        self.down = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.middle = inner.blocks
        self.middle_position = nn.Parameter(torch.randn(1, 2 * width, 8, 8) * 0.02)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)

    def encode(self, latents: Tensor, images: Tensor | None = None, queries: Tensor | None = None) -> Tensor:
        """As `LatentEncoder.encode`."""
        features = self.blocks[0](self.embed(latents) + self.position)
        inner = self.down(features) + self.middle_position
        for block in self.middle:
            inner = block(inner)
        features = self.blocks[1](features + self.up(inner))
        features = self.norm(features.movedim(1, -1)).movedim(-1, 1)
        return latents + self.project(features)

    forward = encode


DESIGNS: dict[str, Callable[[], LatentEncoder]] = {
    "320 wide, 6 layers (today's)": LatentEncoder,
    "wider: 448, 3 layers": lambda: LatentEncoder(width=448, layers=3, heads=7),
    "deeper: 256, 9 layers": lambda: LatentEncoder(width=256, layers=9, heads=4),
    "U: 2 of 256 on 256 tokens, 5 of 512 on 64": lambda: UShaped(width=256, layers=5),
    "today's, beside the picture": lambda: LatentEncoder(pixel_width=64),
}


def batch_of(pairs: dict[str, np.ndarray], index: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """LQ latents, LQ images in [-1,1], clean latents."""
    latents, clean = (
        torch.from_numpy(pairs[name][index].astype(np.float32)) for name in ("lq_latents", "clean_latents")
    )
    return latents, to_signed(pairs["lq"][index]), clean


def train(encoder: LatentEncoder, pairs: dict[str, np.ndarray], options: argparse.Namespace) -> int:
    """Train for ``options.minutes``, the rate falling with the clock; returns the samples seen."""
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=options.rate, betas=(0.9, 0.99), weight_decay=0.01)
    started, step, span = time.monotonic(), 0, 60 * options.minutes
    while (passed := time.monotonic() - started) < span:
        warm = min(1.0, (step + 1) / 20)
        cosine = 0.5 * (1 + np.cos(np.pi * passed / span))
        optimizer.param_groups[0]["lr"] = options.rate * warm * (0.05 + 0.95 * cosine)
        index = np.random.default_rng([options.seed, step]).integers(options.count, size=options.batch_size)
        latents, images, clean = batch_of(pairs, index)
        F.mse_loss(encoder.encode(latents, images), clean).backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
    return step * options.batch_size


@torch.no_grad()
def held_out(folder: Path, count: int) -> dict[str, dict[str, np.ndarray]]:
    """Pairs of a level each, in the layout of the cache."""
    autoencoder = load_preset_pipeline("compact").autoencoder
    names = sorted(path.name for path in (folder / "gt").iterdir())
    names = names[:: max(1, len(names) // count)][:count]

    def read(level: str) -> np.ndarray:
        return np.stack([np.array(Image.open(folder / level / name).convert("RGB")) for name in names])

    def encode(pictures: np.ndarray) -> np.ndarray:
        return torch.cat([lq_latents(autoencoder, None, part) for part in to_signed(pictures).split(8)]).numpy()

    clean = encode(read("gt"))
    return {
        level: {"lq": (lq := read(level)), "lq_latents": encode(lq), "clean_latents": clean}
        for level in ("mild", "severe")
    }


@torch.no_grad()
def error(encoder: LatentEncoder, pairs: dict[str, np.ndarray]) -> float:
    """Mean square error of the latents of all pairs."""
    parts = np.array_split(np.arange(len(pairs["lq"])), max(1, len(pairs["lq"]) // 8))
    found = [(len(part), batch_of(pairs, part)) for part in parts]
    return sum(n * F.mse_loss(encoder.encode(a, b), c).item() for n, (a, b, c) in found) / len(pairs["lq"])


def designs() -> None:
    """Train each design for the same time, and print what it reached."""
    parser = argparse.ArgumentParser(description=designs.__doc__)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--count", type=int, help="use the first so many pairs")
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    console = Console(width=160)
    pairs = {
        name: np.load(options.pairs / f"{name}.npy", mmap_mode="r") for name in ("lq", "lq_latents", "clean_latents")
    }
    options.count = options.count or len(pairs["lq"])
    levels = held_out(options.held_out, options.faces)
    before = ", ".join(
        f"{level} {np.square(part['lq_latents'] - part['clean_latents']).mean():.4f}" for level, part in levels.items()
    )
    console.print(f"latent error of the input: {before}")
    for name, design in DESIGNS.items():
        torch.manual_seed(options.seed)
        encoder = design()
        seen = train(encoder, pairs, options)
        errors = ", ".join(f"{level} {error(encoder.eval(), part):.4f}" for level, part in levels.items())
        size = sum(p.numel() for p in encoder.parameters()) / 1e6
        console.print(f"{name}: {size:.1f} M, {seen} samples, {seen / 60 / options.minutes:.2f}/s, {errors}")


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
