"""Every step at the published layout in two processes, and in pieces, has the losses of one process."""

import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import steps_run
import torch
from steps_run import Ran, restored, run
from tiny_checkpoint import Tiny


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "config"),
    [
        ("semantic", "cpu_gloo"),
        ("fidelity", "cpu_gloo"),
        ("preference", "cpu_gloo"),
        ("semantic", "fsdp"),
        ("fidelity", "fsdp"),
    ],
)
def test_two_processes_have_the_losses_of_one(
    tiny: Tiny, preset: str, faces: Path, first: tuple[Path, Ran], tmp_path: Path, stage: str, config: str
) -> None:
    output = first[0] if stage == "semantic" else tmp_path / "one"
    one = first[1] if stage == "semantic" else run(stage, faces, preset, tiny.assembled, output)
    launch = Path(str(files("prefrestore"))) / "training/accelerate" / f"{config}.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(launch), "--num_processes", "2"]
    command += ["--main_process_port", "0", str(steps_run.__file__), stage]
    command += [str(part) for part in (faces, preset, tiny.assembled, tmp_path / "two")]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    two = json.loads((tmp_path / "two" / "losses.json").read_text())
    assert len(one.losses) == len(two) == 3
    for theirs, ours in zip(two, one.losses, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-7)

    def picture(folder: Path) -> torch.Tensor:
        if stage == "preference":
            return restored(tiny.assembled, lora=folder / "preference")
        return restored(folder / "pipeline")

    torch.testing.assert_close(picture(tmp_path / "two"), picture(output), atol=1e-4, rtol=1e-4)
