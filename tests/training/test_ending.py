"""What a process of a run has started ends before the process does: its group's threads, workers and trackers."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("ending_run.py")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")


def two(folder: Path, how: str, **environment: str) -> list[dict[str, object]]:
    """How each of two processes ended; none may be killed, nor abort."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    here |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment
    command = [sys.executable, str(SCRIPT), str(folder), how]
    ranks = [
        subprocess.Popen(
            command, env=os.environ | here | {"RANK": rank, "LOCAL_RANK": rank}, text=True, stderr=subprocess.PIPE
        )
        for rank in "01"
    ]
    told = [process.communicate(timeout=600)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], told
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


SHARDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true"}


# Two processes that hold copies and end well are also those of test_processes.py.
@pytest.mark.parametrize(
    "environment",
    [pytest.param({}, id="copied", marks=pytest.mark.slow), pytest.param(SHARDED, id="sharded")],
)
def test_nothing_outlives_a_run_that_ends_well(tmp_path: Path, environment: dict[str, str]) -> None:
    pytest.importorskip("tensorboard")
    assert two(tmp_path, "well", **environment) == [{"ended": "well", "left over": []}] * 2


def test_nothing_outlives_an_error_and_the_others_learn_of_it(tmp_path: Path) -> None:
    first, second = two(tmp_path, "error")
    assert second == {"ended": "ValueError: of the second process alone", "left over": []}
    assert first["ended"] != "well" and first["left over"] == []


def test_nothing_outlives_an_interrupt(tmp_path: Path) -> None:
    assert two(tmp_path, "interrupt") == [{"ended": "KeyboardInterrupt: ", "left over": []}] * 2
