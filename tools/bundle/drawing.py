"""Draws faces with the bundle's generator into a folder that training reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from prefrestore.degrade.folder import write_png
from prefrestore.models.generator import MobileStyleGAN


def draw_faces(
    weights: Path, folder: Path, count: int, *, size: int, seed: int, threads: int, log: Callable[[str], None]
) -> None:
    """``count`` faces of ``size`` px as face_NNNNNN.png; those that are there are kept.

    Batch b of 32 comes from the generator of (seed, b), so a run that was stopped goes on. The faces do not depend on
    the device, but for the last digit of a grey level.
    """
    missing = [b for b in range(0, count, 32) if not all(place(folder, k).exists() for k in inside(b, count))]
    if not missing:
        return
    accelerated = torch.accelerator.is_available()
    device = torch.accelerator.current_accelerator() if accelerated else torch.device("cpu")
    network, started, drawn = MobileStyleGAN(weights).to(device), time.monotonic(), 0
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for begin in missing:
            numbers = inside(begin, count)
            generator = torch.Generator().manual_seed(seed * 1_000_003 + begin)
            left = len(numbers)
            while left:  # on a CPU two at a time: the last layers of 32 would fill gigabytes
                part = min(left, 32 if accelerated else 2)
                faces = network.draw(part, generator=generator, size=size).add(1).mul(127.5).round().byte()
                pictures = faces.permute(0, 2, 3, 1).cpu().numpy()
                chosen = numbers[len(numbers) - left :][:part]
                list(pool.map(write_png, [place(folder, k) for k in chosen], pictures))
                left -= part
                drawn += part
    log(f"{drawn} faces drawn, {drawn / (time.monotonic() - started):.1f} a second with their files")


def inside(begin: int, count: int) -> range:
    """The numbers of the batch that begins there."""
    return range(begin, min(begin + 32, count))


def place(folder: Path, number: int) -> Path:
    """The file of a face."""
    return folder / f"face_{number:06d}.png"
