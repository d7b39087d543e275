"""Every stage of the training on a GPU that is pretended: what is left on the CPU fails, also without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType

from prefrestore.preference import trainer as preference

SCRIPT = Path(__file__).with_name("device_run.py")
STAGES = ["autoencoder", "tokenizer", "semantic", "encoder", "fidelity", "one-stage", "scorer", "judged"]
STAGES += [f"preference, {objective}" for objective in ("nft", "grpo", "reward-gradient")]
needs_devices = pytest.mark.skipif(
    not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this version of torch has no devices written in Python",
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """How each stage ended, by its name."""
    folder = tmp_path_factory.mktemp("devices")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, check=False,
        capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "told.json").read_text())


@needs_devices
@pytest.mark.slow
def test_mixed_devices_are_found(told: dict[str, str]) -> None:
    assert told["mixed"] == "found", told["mixed"]


@needs_devices
@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_on_one_device(told: dict[str, str], stage: str) -> None:
    assert told[stage] == "2 steps on gpu", told[stage]


class Enough(Exception):
    """What there is to see was seen."""


def test_pairs_are_computed_on_the_device_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # On the CPU alone they would be no mixed devices, only slow.
    seen: list[str] = []

    def latent_pairs(pipeline: torch.nn.Module, *_: object) -> None:
        seen.append(pipeline.device.type)
        raise Enough

    place = SimpleNamespace(device=torch.device("meta"), distributed_type=DistributedType.NO)
    monkeypatch.setattr(preference, "new_accelerator", lambda *_: place)
    monkeypatch.setattr(preference, "latent_pairs", latent_pairs)
    config = preference.Config(data=(tmp_path,), output_dir=tmp_path, preset="tiny", rewards="psnr=1", held_out="none")
    with pytest.raises(Enough):
        preference.run(config)
    assert seen == ["meta"]
