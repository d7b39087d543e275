"""Every stage at tiny scale on the pretended GPU of `fake_gpu`: ``python device_run.py FOLDER [STAGE]...``.

Writes FOLDER/told.json: by stage, how it failed, or where it ended. In a process of its own: the device stays.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import fake_gpu
import numpy as np
import torch

from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.preference import fit, scorer_trainer
from prefrestore.preference import trainer as preference
from prefrestore.training import autoencoder, encoder, fidelity, one_stage, semantic, tokenizer

SHORT: dict[str, Any] = {
    "preset": "tiny", "steps": 2, "batch_size": 2, "sample_every": 1, "mixed_precision": "no",
}  # fmt: skip
"""Two steps, with a sample after each."""
PLAIN = {"perceptual_weight": 0.0}
"""LPIPS needs weights that a stranger's machine does not have."""


def faces(folder: Path) -> Path:
    """Six pictures of 64 px with captions, and judgements of two of them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(6):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{k}.png"), cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC))
    lines = [json.dumps({"id": str(k), "caption": f"A person in front of wall {k}."}) for k in range(6)]
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")
    pairs = [(a, b) for a in range(6) for b in range(a)]
    rows = [
        {"first": f"{a}.png", "second": f"{b}.png", "choice": "first", "who": "me", "when": "2026-01-01T00:00:00Z"}
        for a, b in pairs
    ]
    (folder / "judgements.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


def working_folder(folder: Path) -> Path:
    """A working folder with random components."""
    pipeline = load_preset_pipeline("tiny")
    for name in ("image_tokenizer", "text_tokenizer", "language_model", "autoencoder", "lq_encoder"):
        getattr(pipeline, name).save_pretrained(folder / name)
    return folder


def stages(data: Path, root: Path) -> dict[str, Callable[[Path], Any]]:
    """By name, a run in a working folder."""

    def common(work: Path) -> dict[str, Any]:
        return {"data": (data,), "output_dir": work} | SHORT

    def quiet(line: str) -> None:
        pass

    def aligned(objective: str) -> Callable[[Path], Any]:
        def run(work: Path) -> Any:
            config = preference.Config(
                **common(work), pairs=4, objective=objective, rewards="identity=1,preference=1", held_out="psnr",
                held_out_every=1, held_out_faces=2, group_size=2, rank=2, alpha=2, tracker="none",
            )  # fmt: skip
            return preference.run(config, log=quiet)

        return run

    return {
        "autoencoder": lambda work: autoencoder.run(autoencoder.Config(**common(root / "new"), crop=32), log=quiet),
        "tokenizer": lambda work: tokenizer.run(tokenizer.Config(**common(root / "new")), log=quiet),
        "semantic": lambda work: semantic.run(semantic.Config(**common(work)), log=quiet),
        "encoder": lambda work: encoder.run(
            encoder.Config(**common(work), **PLAIN, pairs=4, decoded_margin=1), log=quiet
        ),
        "fidelity": lambda work: fidelity.run(
            fidelity.Config(**common(work), **PLAIN, pairs=4, decoded_margin=1, adversarial_weight=0.1), log=quiet
        ),
        "one-stage": lambda work: one_stage.run(
            one_stage.Config(**common(root / "one"), **PLAIN, components=work, decoded_margin=1), log=quiet
        ),
        **{f"preference, {name}": aligned(name) for name in ("nft", "grpo", "reward-gradient")},
        "scorer": lambda work: scorer_trainer.run(scorer_trainer.Config(**common(work), restored_faces=2), log=quiet),
        "judged": lambda work: fit.run(
            fit.Config(judgements=(data / "judgements.jsonl",), output_dir=work, steps=2, batch_size=2), log=quiet
        ),
    }


def mixed() -> None:
    """That mixed devices are found."""
    there, here = torch.ones(2, 2, device=fake_gpu.GPU), torch.ones(2, 2)
    assert there.device == fake_gpu.GPU and (there * 2).sum().item() == 8
    generator = torch.Generator()
    for fault in (
        lambda: there + here,
        lambda: there @ here,
        lambda: torch.cat([there, here]),
        lambda: torch.nn.Linear(2, 1)(there),
        lambda: torch.randn(2, device=fake_gpu.GPU, generator=generator),
        lambda: there.numpy(),
        lambda: there[there > 0] + here.flatten(),
    ):
        try:
            fault()
        except (RuntimeError, AssertionError, TypeError):
            continue
        raise AssertionError("a mixed device was not found")
    layer = torch.nn.Linear(2, 1)
    held = layer.weight
    layer.to(fake_gpu.GPU)(there).sum().backward()
    assert held is layer.weight and held.grad is not None and held.grad.device == fake_gpu.GPU


def main(root: Path, chosen: list[str]) -> None:
    os.environ["PREFRESTORE_CACHE"] = str(root / "cache")
    data = faces(root / "data")
    told = {}
    for name, run in {"mixed": None, **stages(data, root)}.items():
        if chosen and name not in chosen:
            continue
        work = working_folder(root / "work" / name)
        try:
            with fake_gpu.pretended_gpu():
                if run is None:
                    mixed()
                    told[name] = "found"
                else:
                    trainer = run(work)
                    kinds = {value.device.type for value in trainer.trained.values()}
                    told[name] = f"{trainer.step} steps on {' and '.join(sorted(kinds))}"
        except Exception:  # noqa: BLE001
            told[name] = traceback.format_exc()
        (root / "told.json").write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2:])
