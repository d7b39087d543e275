"""``prefrestore preference``: one sentence for what is wrong, scores best first, and a scorer that can be shown."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prefrestore.models.scorer import PreferenceScorer, save_scorer


@pytest.fixture
def scorer(tmp_path: Path) -> Path:
    """A small random scorer's folder."""
    model = PreferenceScorer(image_size=64, widths=(8, 16), blocks=(1, 1), heads=2)
    save_scorer(model.initialise(torch.Generator().manual_seed(0)), tmp_path / "scorer")
    return tmp_path / "scorer"


@pytest.fixture
def faces(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(path)
    return paths


def test_fit_then_score_with_what_was_fitted(
    prefrestore: Callable[[Sequence[str | Path]], object], scorer: Path, faces: list[Path], tmp_path: Path
) -> None:
    judgements = tmp_path / "j.jsonl"
    rows = [("a.png", "b.png"), ("b.png", "c.png"), ("a.png", "c.png")]
    judgements.write_text(
        "".join(
            json.dumps({"first": a, "second": b, "choice": "first", "who": "R1", "when": "2026-03-01"}) + "\n"
            for a, b in rows
        )
    )
    fit = ["preference", "fit", "--judgements", judgements, "--output-dir", tmp_path / "out", "--start-from", scorer]
    ran = prefrestore([*fit, "--steps", "30", "--batch-size", "3", "--learning-rate", "0.003", "--held-out", "0.3"])
    assert ran.code == 0 and "expected calibration error" in ran.text  # type: ignore[attr-defined]
    ran = prefrestore(["preference", "score", *reversed(faces), "--scorer", tmp_path / "out" / "scorer"])
    rows_out = [line.split() for line in ran.text.splitlines()]  # type: ignore[attr-defined]
    values = [float(value) for value, _ in rows_out]
    assert values == sorted(values, reverse=True) and {Path(path) for _, path in rows_out} == set(faces)


def test_wrong_input_is_one_sentence(
    prefrestore: Callable[[Sequence[str | Path]], object], faces: list[Path], tmp_path: Path
) -> None:
    judgements = tmp_path / "j.jsonl"
    judgements.write_text('{"first": "a.png"}\n')
    ran = prefrestore(["preference", "fit", "--judgements", judgements, "--output-dir", tmp_path / "out"])
    assert ran.code == 1 and "j.jsonl, line 1: 'second' is missing" in ran.text  # type: ignore[attr-defined]
    assert not (tmp_path / "out").exists()
    ran = prefrestore(["preference", "score", faces[0], "--scorer", tmp_path / "nowhere"])
    assert ran.code == 1 and "no preference scorer" in ran.text  # type: ignore[attr-defined]


def test_show_names_size_and_hashes(prefrestore: Callable[[Sequence[str | Path]], object], scorer: Path) -> None:
    ran = prefrestore(["preference", "show", "--scorer", scorer])
    text = ran.text  # type: ignore[attr-defined]
    assert ran.code == 0 and "parameters" in text and "safetensors" in text  # type: ignore[attr-defined]
