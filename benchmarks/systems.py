"""What `quality.py` measures, each as a function from (name, LQ picture) to a picture of the LQ's size."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peers import PEERS, restore_cached
from PIL import Image

from prefrestore.errors import InvalidInputError

Restore = Callable[[Sequence[str], Sequence[Image.Image]], list[Image.Image]]

PROMPTS = ("none", "right", "empty", "wrong")


@dataclass(frozen=True)
class ModelOptions:
    """How our own pipeline is run; None leaves the preset's default."""

    model: Path | None = None
    steps: int | None = None
    seed: int = 0
    fidelity: float | None = None
    prompt: str = "none"
    captions: Path | None = None
    no_queries: bool = False

    @property
    def title(self) -> str:
        """The row's name: what differs from the defaults is named."""
        parts = [f"steps {self.steps}" if self.steps else "", f"prompt {self.prompt}"]
        parts += [f"fidelity {self.fidelity:g}" if self.fidelity is not None else ""]
        parts += ["no queries" if self.no_queries else ""]
        return "prefrestore, " + ", ".join(part for part in parts if part)


def caption_of(path: Path, mode: str, names: Sequence[str]) -> dict[str, str | None]:
    """The prompt of each picture: none, its caption, an empty text, or another picture's caption.

    "Wrong" takes the caption of the picture half the list away, so that the texts are real but another person's.
    """
    if mode in ("none", "empty"):
        return dict.fromkeys(names, None if mode == "none" else "")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    captions = {row["id"]: row["caption"] for row in rows}
    lacking = [name for name in names if Path(name).stem not in captions]
    if lacking:
        raise InvalidInputError(f"{path} has no caption for {lacking[0]}.")
    shift = 0 if mode == "right" else len(names) // 2
    return {name: captions[Path(names[(place + shift) % len(names)]).stem] for place, name in enumerate(names)}


def ours(options: ModelOptions, names: Sequence[str]) -> Restore:
    """Our pipeline; every face has a generator of its own, so that the batch does not matter."""
    import torch

    from prefrestore.pipeline.build import load_preset_pipeline

    pipeline = load_preset_pipeline("compact", folder=options.model)
    pipeline.set_progress_bar_config(disable=True)
    captions = caption_of(options.captions or Path("captions.jsonl"), options.prompt, names)

    def restore(batch: Sequence[str], pictures: Sequence[Image.Image]) -> list[Image.Image]:
        extra: dict[str, Any] = {}
        if options.no_queries:
            tokens = pipeline.image_tokenizer.num_tokens + 1
            width = pipeline.language_model.config.hidden_size
            extra["queries"] = torch.zeros(len(batch), tokens, width)
        result = pipeline(
            list(pictures),
            prompt=[captions[name] for name in batch],
            num_inference_steps=options.steps,
            generator=[torch.Generator().manual_seed(options.seed + names.index(name)) for name in batch],
            fidelity=options.fidelity,
            output_type="pil",
            **extra,
        ).images
        return [
            image if image.size == lq.size else image.resize(lq.size, Image.Resampling.LANCZOS)
            for image, lq in zip(result, pictures, strict=True)
        ]

    return restore


def peer(key: str) -> Restore:
    """A peer, from its cache where it has been run before."""
    loaded: dict[str, Any] = {}
    return lambda names, pictures: [restore_cached(key, picture, loaded) for picture in pictures]


def unchanged(names: Sequence[str], pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """The LQ input itself."""
    return list(pictures)


def peer_title(key: str) -> str:
    """The row's name of a peer."""
    return PEERS[key].title


def as_array(picture: Image.Image) -> np.ndarray:
    """H,W,3 uint8."""
    return np.array(picture.convert("RGB"))
