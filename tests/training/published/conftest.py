"""A tiny checkpoint in every published format, a preset of its widths, and faces to train on."""

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

# What writes published files, and what runs a stage, are no tests themselves.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "pipeline" / "published"))
sys.path.insert(0, str(Path(__file__).parent))

import tiny_checkpoint


@pytest.fixture(scope="package")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tiny_checkpoint.Tiny:
    return tiny_checkpoint.write_all(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="package")
def preset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A preset of the published classes with the widths of the tiny files, by its path."""
    path = tmp_path_factory.mktemp("preset") / "tiny-paper.json"
    path.write_text(json.dumps(tiny_checkpoint.preset()))
    return str(path)


@pytest.fixture(scope="package")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    for k in range(4):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{k}.png"), cv2.resize(coarse, (32, 32), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture(scope="package")
def first(tiny: tiny_checkpoint.Tiny, preset: str, faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three steps of step 1 from the assembled folder, which is in shards: the working folder, and their losses."""
    import steps_run

    output = tmp_path_factory.mktemp("first")
    return output, steps_run.run("semantic", faces, preset, tiny.assembled, output)
