"""Draws faces of nobody: the training pictures that anyone can make again from a package alone.

The generator is a MobileStyleGAN (arXiv 2104.04767), as OpenVINO IR inside the PyPI package random_face
2021.7.21.1 (Apache-2.0). Its teacher, StyleGAN2, was trained on FFHQ, whose own licence is non-commercial;
see docs/data-card.md. Only the weight files are read, through openvino; none of the package's code is
imported (it calls an interface that openvino no longer has).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prefrestore.errors import InvalidInputError, MissingDependencyError, WeightsError
from prefrestore.files.atomic import written_beside

PACKAGE, VERSION = "random_face", "2021.7.21.1"
NATIVE_SIZE = 1024
LATENT = 512
MEAN_DRAWS = 4096
INSTALL = f"pip install openvino && pip install --no-deps {PACKAGE}=={VERSION}"
SHA256 = {
    "MappingNetwork.bin": "212dd716bdb556e18db603ea97300d4fa3c872b878c726b2402fea80820e7305",
    "MappingNetwork.xml": "73e2096cad6e696e4af47df2477e048ab4c42c0e0dec83c7c66604822689e55b",
    "SynthesisNetwork.bin": "c7da15fa22d508c82e1c30dd6b4cdf67fe3ccdddaf85b310ee764dbf0c289645",
    "SynthesisNetwork.xml": "7918fce515243954d3e06628cb39a23902d6b1d5d02932cc0c2faee7a2aeeedd",
}


@dataclass(frozen=True, kw_only=True)
class SynthesisConfig:
    """What makes a folder of drawn faces; it is written into `generator.json` there.

    psi: truncation, uniform in (low, high); 0 is the mean face, 1 the whole variety with its failures.
    size: side of the stored pictures in px; 1024 is native, smaller ones are averaged down.
    """

    seed: int = 0
    psi: tuple[float, float] = (0.6, 1.0)
    size: int = NATIVE_SIZE

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InvalidInputError(f"the seed {self.seed} is negative")
        if not 0 <= self.psi[0] <= self.psi[1] <= 1.5:
            raise InvalidInputError(f"psi {self.psi[0]}..{self.psi[1]} is outside 0..1.5")
        if not 1 <= self.size <= NATIVE_SIZE:
            raise InvalidInputError(f"a size of {self.size} px is outside 1..{NATIVE_SIZE}")


class FaceGenerator:
    """The compiled generator. Raises MissingDependencyError without the packages, WeightsError for altered
    files."""

    def __init__(self, threads: int | None = None) -> None:
        folder = find_weights()
        try:
            import openvino
        except ImportError as error:
            raise MissingDependencyError(f"drawing faces needs openvino: {INSTALL}") from error
        core = openvino.Core()
        # A processor that computes in bf16 would do so unasked, and draw other faces than the rest.
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        mapping = core.read_model(folder / "MappingNetwork.xml")
        mapping.reshape([MEAN_DRAWS, LATENT])
        # The mean of w belongs to the network, not to a run: its draws have a seed of their own.
        draws = np.random.default_rng(20210721).standard_normal((MEAN_DRAWS, LATENT), dtype=np.float32)
        styles = core.compile_model(mapping, "CPU", options)(draws)[0]
        self.mean_style: npt.NDArray[np.float32] = np.asarray(styles).mean(axis=0, keepdims=True)
        mapping.reshape([1, LATENT])
        self._mapping = core.compile_model(mapping, "CPU", options)
        self._synthesis = core.compile_model(core.read_model(folder / "SynthesisNetwork.xml"), "CPU", options)

    def draw(self, rng: np.random.Generator, psi: float) -> npt.NDArray[np.uint8]:
        """One face, uint8 1024,1024,3 RGB: w = mean + psi (w(z) - mean), z ~ N(0, I) of 512 numbers."""
        latent = rng.standard_normal((1, LATENT), dtype=np.float32)
        style = np.asarray(self._mapping(latent)[0])
        style = self.mean_style + np.float32(psi) * (style - self.mean_style)
        signed = np.asarray(self._synthesis(style)[0])[0].transpose(1, 2, 0)
        return np.asarray(np.rint(np.clip(signed * 127.5 + 127.5, 0, 255)), dtype=np.uint8)


def find_weights() -> Path:
    """The folder with the generator's four files, each checked against its recorded SHA-256."""
    try:
        distribution = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise MissingDependencyError(f"drawing faces needs the package {PACKAGE}: {INSTALL}") from error
    folder = Path(str(distribution.locate_file(f"{PACKAGE}/data")))
    for name, expected in SHA256.items():
        path = folder / name
        if not path.is_file():
            raise WeightsError(f"{path} is missing; {PACKAGE} {VERSION} is needed: {INSTALL}")
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise WeightsError(f"{path} is not the file of {PACKAGE} {VERSION}: its SHA-256 differs")
    return folder


def synthesize_faces(
    output: Path,
    count: int,
    config: SynthesisConfig | None = None,
    *,
    first: int = 0,
    threads: int | None = None,
    generator: FaceGenerator | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> list[Path]:
    """Draws the faces number `first` to `first + count - 1` into `output` as face_NNNNNN.png; gives their
    paths.

    Face n depends on the seed and n alone, so a run may stop and go on, or be shared out between machines;
    faces that are there already are kept. Pixels may differ by a grey level between processors. 0.3 to 0.7 s
    a face on two cores.
    progress: wraps the numbers to draw, for a progress bar.
    Raises InvalidInputError when `output` holds faces of another config, ImageWriteError,
    MissingDependencyError and WeightsError.
    """
    import cv2

    from prefrestore.degrade.folder import write_png

    config = config or SynthesisConfig()
    if count < 1 or first < 0:
        raise InvalidInputError(f"{count} faces from number {first} cannot be drawn")
    paths = {number: output / f"face_{number:06d}.png" for number in range(first, first + count)}
    missing = [number for number, path in paths.items() if not path.exists()]
    if missing:
        _write_record(output / "generator.json", config)
        generator = generator or FaceGenerator(threads)
    for number in progress(missing):
        assert generator is not None  # made above, because something is missing
        rng = np.random.default_rng([config.seed, number])
        face = generator.draw(rng, float(rng.uniform(*config.psi)))
        if config.size != face.shape[0]:
            small = cv2.resize(face, (config.size, config.size), interpolation=cv2.INTER_AREA)
            face = np.asarray(small).astype(np.uint8, copy=False)
        write_png(paths[number], face)
    return list(paths.values())


def _write_record(path: Path, config: SynthesisConfig) -> None:
    record = {
        "generator": f"{PACKAGE} {VERSION}",
        "sha256": SHA256,
        **asdict(config),
        "psi": list(config.psi),
    }
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"{path} is no record of drawn faces") from error
        if found != record:
            raise InvalidInputError(f"{path} tells of other settings; draw into another folder")
        return
    with written_beside(path) as part:
        part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
