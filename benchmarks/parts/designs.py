"""Designs of the LQ encoder, each trained from nothing on the same cached pairs, for the same time of the
processor, which other work on the machine does not change (on an idle machine and one thread it is wall time).

The last two differ in what they are asked for, not in what they are: losses on the decoded picture (LPIPS and likeness
in random views, as `prefrestore train encoder` has them) beside the latent error.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parts.systems import BENCH
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from prefrestore.metrics.likeness import DlibRecogniser, distances
from prefrestore.metrics.lpips import LPIPS
from prefrestore.models.texture.lq_encoder import LatentEncoder, lq_latents
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.training.encoder import Config, EncoderObjective, new_objective
from prefrestore.training.images import to_signed

LEVELS = ("mild", "severe")
NAMES = ("lq", "lq_latents", "clean_latents", "targets")
NO_LOSSES = {"perceptual_weight": 0.0, "identity_weight": 0.0, "features_weight": 0.0}


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


DESIGNS: dict[str, tuple[Callable[[], LatentEncoder], bool]] = {
    "320 wide, 6 layers": (LatentEncoder, False),
    "wider: 448, 3 layers": (lambda: LatentEncoder(width=448, layers=3, heads=7), False),
    "deeper: 256, 9 layers": (lambda: LatentEncoder(width=256, layers=9, heads=4), False),
    "U: 2 of 256 on 256 tokens, 5 of 512 on 64": (lambda: UShaped(width=256, layers=5), False),
    "320 wide, beside the picture": (lambda: LatentEncoder(pixel_width=64), False),
    "320 wide, losses on pictures": (LatentEncoder, True),
    "both (today's)": (lambda: LatentEncoder(pixel_width=64), True),
}
"""What is built, and whether decoded pictures are looked at in training."""


def objective_of(encoder: LatentEncoder, autoencoder: Any, *, decoded: bool) -> EncoderObjective:
    """The losses of ``train encoder`` behind no input skip."""
    weights = {"perceptual_weight": 1.0} if decoded else NO_LOSSES
    objective = new_objective(Config(data=(), output_dir=Path(), **weights), autoencoder)
    objective.lq_encoder, objective.input_skip = encoder, None
    return objective


def batch_of(pairs: dict[str, np.ndarray], index: np.ndarray) -> dict[str, Tensor]:
    """What `EncoderObjective.forward` takes."""
    batch = {name: torch.from_numpy(pairs[name][index].astype(np.float32)) for name in ("lq_latents", "clean_latents")}
    return batch | {"images": to_signed(pairs["lq"][index]), "targets": to_signed(pairs["targets"][index])}


def train(objective: EncoderObjective, pairs: dict[str, np.ndarray], options: argparse.Namespace) -> int:
    """Train for ``options.minutes`` of the processor, the rate falling with them; returns the samples seen."""
    encoder = objective.lq_encoder
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=options.rate, betas=(0.9, 0.99), weight_decay=0.01)
    generator = torch.Generator().manual_seed(options.seed)
    started, step, span = time.process_time(), 0, 60 * options.minutes
    while (passed := time.process_time() - started) < span:
        warm = min(1.0, (step + 1) / 20)
        cosine = 0.5 * (1 + np.cos(np.pi * passed / span))
        optimizer.param_groups[0]["lr"] = options.rate * warm * (0.05 + 0.95 * cosine)
        index = np.random.default_rng([options.seed, step]).integers(options.count, size=options.batch_size)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.mixed_precision == "bf16"):
            objective(**batch_of(pairs, index), generator=generator)["loss"].backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
    return step * options.batch_size


@torch.no_grad()
def held_out(folder: Path, count: int, autoencoder: Any) -> dict[str, dict[str, np.ndarray]]:
    """Pairs of a level each, in the layout of the cache."""
    names = sorted(path.name for path in (folder / "gt").iterdir())
    names = names[:: max(1, len(names) // count)][:count]

    def read(level: str) -> np.ndarray:
        return np.stack([np.array(Image.open(folder / level / name).convert("RGB")) for name in names])

    def encode(pictures: np.ndarray) -> np.ndarray:
        return torch.cat([lq_latents(autoencoder, None, part) for part in to_signed(pictures).split(8)]).numpy()

    truth = read("gt")
    clean = encode(truth)
    return {
        level: {"lq": (lq := read(level)), "lq_latents": encode(lq), "clean_latents": clean, "targets": truth}
        for level in LEVELS
    }


class Judge:
    """Latent error, LPIPS and dlib's distance of what an encoder makes of held-out faces, decoded without a skip."""

    def __init__(self, autoencoder: Any, levels: dict[str, dict[str, np.ndarray]]) -> None:
        self.autoencoder, self.levels = autoencoder, levels
        self.perceptual, self.recogniser = LPIPS("alex"), DlibRecogniser()
        truths = levels[LEVELS[0]]["targets"]
        self.boxes = [self.recogniser.box(picture) for picture in truths]
        self.truths = self.vectors(truths)

    def vectors(self, pictures: np.ndarray) -> np.ndarray:
        """dlib's, (N,128)."""
        return np.stack([self.recogniser.vector(*seen) for seen in zip(pictures, self.boxes, strict=True)])

    @torch.no_grad()
    def __call__(self, encoder: Callable[[Tensor, Tensor], Tensor]) -> str:
        """Said of each level; the encoder takes latents and pictures."""
        said = []
        for level, pairs in self.levels.items():
            errors, alike, pictures = [], [], []
            for part in np.array_split(np.arange(len(pairs["lq"])), len(pairs["lq"]) // 8 or 1):
                batch = batch_of(pairs, part)
                found = encoder(batch["lq_latents"], batch["images"])
                made = self.autoencoder.decode(found / self.autoencoder.config.scaling_factor).sample.clamp(-1, 1)
                errors += (found - batch["clean_latents"]).square().mean((1, 2, 3)).tolist()
                alike += self.perceptual(made, batch["targets"]).flatten().tolist()
                pictures.append(made.add(1).mul(127.5).round().byte().movedim(1, -1).numpy())
            distance = distances(self.vectors(np.concatenate(pictures)), self.truths).mean()
            said.append(f"{level} latent {np.mean(errors):.4f} LPIPS {np.mean(alike):.3f} dlib {distance:.4f}")
        return "; ".join(said)


def designs() -> None:
    """Train each design for the same time of the processor, and print what it reached."""
    parser = argparse.ArgumentParser(description=designs.__doc__)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--count", type=int, help="use the first so many pairs")
    parser.add_argument("--held-out", type=Path, default=BENCH)
    parser.add_argument("--faces", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--mixed-precision", choices=("no", "bf16"), default="no")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", nargs="+", default=[""], help="designs whose names hold one of these")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    console = Console(width=200)
    pairs = {name: np.load(options.pairs / f"{name}.npy", mmap_mode="r") for name in NAMES}
    options.count = options.count or len(pairs["lq"])
    autoencoder = load_preset_pipeline("compact").autoencoder
    judge = Judge(autoencoder, held_out(options.held_out, options.faces, autoencoder))
    console.print(f"the input itself: {judge(lambda latents, _: latents)}")
    chosen = {name: how for name, how in DESIGNS.items() if any(part in name for part in options.only)}
    for name, (design, decoded) in chosen.items():
        torch.manual_seed(options.seed)
        encoder = design()
        objective = objective_of(encoder, autoencoder, decoded=decoded)
        seen = train(objective, pairs, options)
        size = sum(p.numel() for p in encoder.parameters()) / 1e6
        reached = judge(encoder.eval().encode)
        console.print(f"{name}: {size:.1f} M, {seen} samples, {seen / 60 / options.minutes:.2f}/s; {reached}")
