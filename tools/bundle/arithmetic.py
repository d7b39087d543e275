"""What a slice should reach on a device that is not there: operations counted here, over a speed that is assumed."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import recipe
import torch
from torch.utils.flop_counter import FlopCounterMode

from prefrestore.degrade import degrade
from prefrestore.files.weights import write_hashes
from prefrestore.models.generator import MobileStyleGAN
from prefrestore.pipeline.build import build_pipeline
from prefrestore.pipeline.presets import load_preset
from prefrestore.training.loop import Trainer

BATCH = 4
"""Samples of the step that is counted: shares of a batch that are decoded are rounded up, so fewer would count more."""


FLOAT32 = 16
"""How much slower float32 without tensor cores is taken to be than bf16: about that on the GPUs of 2020 to 2023."""


class _Counted(Exception):
    """The step was counted: nothing more is asked of the run."""


@contextmanager
def counting() -> Iterator[list[int]]:
    """Inside the block a run stops at its first step, whose operations are put into the list."""
    found: list[int] = []
    usual = Trainer.fit

    def count(trainer: Trainer) -> Any:
        with FlopCounterMode(display=False) as counter:
            trainer.train_step(trainer.make_batch(0))
        found.append(counter.get_total_flops())
        raise _Counted

    Trainer.fit = count  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Trainer.fit = usual  # type: ignore[method-assign]


def operations(preset: str) -> Iterator[tuple[str, float]]:
    """Stages in order, each with the operations of a sample, forwards and backwards.

    They are counted in a step with new weights and made-up faces.
    """
    with TemporaryDirectory() as name:
        folder, faces = Path(name), Path(name) / "faces"
        faces.mkdir()
        build_pipeline(load_preset(preset)).save_pretrained(folder / "work")
        write_hashes(folder / "work")
        side, rng = 2 * load_preset(preset).face_size, np.random.default_rng(0)  # the last octave's size
        for k in range(BATCH):
            coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            cv2.imwrite(str(faces / f"{k}.png"), cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC))
        for stage in recipe.STAGES:
            if stage.name not in recipe.ASKED:
                continue
            config = {"data": (faces,), "output_dir": folder / "work", "preset": preset, "steps": 1, "pairs": BATCH}
            config |= {"batch_size": BATCH, "mixed_precision": "no"}
            config |= recipe.TINY.get(stage.name, {}) if preset == "tiny" else {}
            if stage.name == "preference":
                # One face is a whole group; landmarks are found by OpenCV, which is not counted, and not in such faces.
                config |= {"batch_size": 1, "rewards": "identity=1,lpips=1"}
                config |= {"model": folder / "work", "held_out": "none", "tracker": "none", "output_dir": folder / "rl"}
            with counting() as found:
                try:
                    stage.trainer.run(stage.trainer.Config(**config), log=lambda _: None)
                except _Counted:
                    yield stage.name, found[0] / config["batch_size"]


def drawing_operations() -> int:
    """Operations of one face of the generator, counted without computing."""
    with FlopCounterMode(display=False) as counter:
        MobileStyleGAN().to("meta").draw(1, generator=torch.Generator().manual_seed(0))
    return counter.get_total_flops()


def degrading_rate(side: int, count: int = 8) -> float:
    """Faces of ``side`` px that one process of this machine degrades in a second, measured."""
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    started = time.monotonic()
    for face in faces:
        degrade(face, "training", rng)
    return count / (time.monotonic() - started)


def estimate(options: argparse.Namespace) -> None:
    """Print, for each stage, what a slice of ``options.minutes`` should reach by arithmetic."""
    speed = options.tflops * 1e12 * options.utilisation

    def say(text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    say(
        f"An estimate, nothing was run on such a device: {options.tflops:.0f} TFLOP/s in bf16, of which "
        f"{100 * options.utilisation:.0f} % are assumed to be reached (--tflops, --utilisation). "
        f"A multiplication and its addition count as two."
    )
    drawing = drawing_operations()
    say(
        f"drawing: {drawing / 1e9:.1f} GFLOP a face in float32, taken as {FLOAT32} times slower: "
        f"{speed / FLOAT32 / drawing:.0f} faces a second without writing them"
    )
    for name, counted in operations(options.preset):
        stage = next(stage for stage in recipe.STAGES if stage.name == name)
        rate, large = speed / counted, stage.large
        length = large["steps"] * large["batch_size"] / rate / 60
        say(
            f"{name}: {counted / 1e9:.1f} GFLOP a sample, {rate:.0f} samples a second, "
            f"{60 * options.minutes * rate:.0f} in {options.minutes:g} minutes; its {large['steps']} steps of "
            f"{large['batch_size']} take {length:.1f} minutes"
        )
    one = degrading_rate(load_preset(options.preset).face_size)
    say(
        f"degrading: {one:.0f} faces a second a process, measured on this machine under its present load; "
        f"{one * max(1, options.workers):.0f} with {options.workers} processes on as many cores. "
        f"A pair is degraded once and then seen many times."
    )
