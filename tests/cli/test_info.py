"""``prefrestore info``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefrestore.files.weights import verify, write_hashes
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.pipeline.presets import PRESET_NAMES


def test_info_names_presets_versions_licences_and_hashes(prefrestore: Callable[..., Any], tmp_path: Path) -> None:
    load_preset_pipeline("tiny").save_pretrained(tmp_path / "model")
    write_hashes(tmp_path / "model")
    ran = prefrestore(["info", "--model", tmp_path / "model"])
    assert ran.code == 0, ran.text
    for word in (*PRESET_NAMES, "torch", "YuNet", "Apache-2.0", "cpu"):
        assert word in ran.text
    folded = "".join(ran.text.split())
    for file, digest in verify(tmp_path / "model").items():
        assert not file.endswith(".safetensors") or digest[:12] in folded


def test_a_plan_names_every_part_and_says_what_fits(prefrestore: Callable[..., Any]) -> None:
    options = ["--preset", "compact", "--batch", "2", "--dtype", "float32", "--card-gb", "10"]
    ran = prefrestore(["info", "--plan", *options])
    assert ran.code == 0, ran.text
    for word in ("language_model", "key-value cache", "--offload model", "sequential", "10 GiB", "8 GiB", "fits"):
        assert word in " ".join(ran.text.split()), word
    assert "Apache-2.0" not in ran.text
