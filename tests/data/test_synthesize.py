import json
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prefrestore.data import synthesize
from prefrestore.data.synthesize import FaceGenerator, SynthesisConfig, find_weights, synthesize_faces
from prefrestore.errors import InvalidInputError, MissingDependencyError, WeightsError


class Painter:
    """Stands in for the generator: a flat picture whose level tells psi."""

    def __init__(self) -> None:
        self.drawn: list[float] = []

    def draw(self, rng: np.random.Generator, psi: float) -> np.ndarray:
        self.drawn.append(psi)
        return np.full((64, 64, 3), int(psi * 100) + int(rng.integers(0, 50)), np.uint8)


def test_faces_depend_on_seed_and_number_only(tmp_path: Path) -> None:
    config = SynthesisConfig(seed=4, size=32)
    all_at_once = synthesize_faces(tmp_path / "a", 4, config, generator=Painter())  # type: ignore[arg-type]
    later = synthesize_faces(tmp_path / "b", 2, config, first=2, generator=Painter())  # type: ignore[arg-type]
    assert [p.name for p in all_at_once] == [f"face_{n:06d}.png" for n in range(4)]
    assert all_at_once[3].read_bytes() == later[1].read_bytes()
    assert Image.open(later[0]).size == (32, 32)
    assert len({p.read_bytes() for p in all_at_once}) > 1


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    class Tired(Painter):
        def draw(self, rng: np.random.Generator, psi: float) -> np.ndarray:
            if len(self.drawn) == 2:
                raise KeyboardInterrupt
            return super().draw(rng, psi)

    with pytest.raises(KeyboardInterrupt):
        synthesize_faces(tmp_path, 5, generator=Tired())  # type: ignore[arg-type]
    painter = Painter()
    asked: list[int] = []
    paths = synthesize_faces(
        tmp_path,
        5,
        generator=painter,  # type: ignore[arg-type]
        progress=lambda numbers: asked.extend(numbers) or list(asked),  # type: ignore[func-returns-value]
    )
    assert asked == [2, 3, 4]
    assert len(painter.drawn) == 3
    assert all(0.6 <= psi <= 1 for psi in painter.drawn)
    assert sorted(p.name for p in tmp_path.iterdir()) == [*(p.name for p in paths), "generator.json"]


def test_the_folder_remembers_its_settings(tmp_path: Path) -> None:
    synthesize_faces(tmp_path, 1, SynthesisConfig(seed=1), generator=Painter())  # type: ignore[arg-type]
    record = json.loads((tmp_path / "generator.json").read_text())
    assert record["seed"] == 1 and record["generator"] == "random_face 2021.7.21.1"
    with pytest.raises(InvalidInputError, match="other settings"):
        synthesize_faces(tmp_path, 2, SynthesisConfig(seed=2), generator=Painter())  # type: ignore[arg-type]
    (tmp_path / "generator.json").write_text("{")
    with pytest.raises(InvalidInputError, match="no record"):
        synthesize_faces(tmp_path, 2, SynthesisConfig(seed=1), generator=Painter())  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"psi": (0.9, 0.5)}, {"psi": (0, 3)}, {"size": 0}, {"size": 2048}])
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        SynthesisConfig(**wrong)


def test_wrong_counts(tmp_path: Path) -> None:
    for count, first in ((0, 0), (1, -1)):
        with pytest.raises(InvalidInputError, match="cannot be drawn"):
            synthesize_faces(tmp_path, count, first=first, generator=Painter())  # type: ignore[arg-type]


class Installed:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def locate_file(self, name: str) -> Path:
        return self.folder / name


def test_without_the_package_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(synthesize.metadata, "distribution", missing)
    with pytest.raises(MissingDependencyError, match="pip install --no-deps random_face==2021.7.21.1"):
        find_weights()


def test_altered_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(synthesize.metadata, "distribution", lambda name: Installed(tmp_path))
    with pytest.raises(WeightsError, match=r"MappingNetwork\.bin is missing"):
        find_weights()
    (tmp_path / "random_face" / "data").mkdir(parents=True)
    for name in synthesize.SHA256:
        (tmp_path / "random_face" / "data" / name).write_bytes(b"other")
    with pytest.raises(WeightsError, match="SHA-256 differs"):
        find_weights()


def test_without_openvino_the_command_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(synthesize, "find_weights", lambda: tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match="needs openvino: pip install openvino"):
        FaceGenerator()
