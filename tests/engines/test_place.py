"""How model actors are spread over a cluster; needs no cluster."""

import pytest

from prefrestore.engines.ray_data import Placement, place
from prefrestore.errors import InvalidInputError

SMALL, LARGE, GPUS, HEAD = {"CPU": 8.0}, {"CPU": 32.0}, {"CPU": 16.0, "GPU": 4.0}, {"memory": 1.0}


def test_one_a_gpu_where_there_are_gpus() -> None:
    both = place([HEAD, SMALL, GPUS, GPUS], device="auto", threads=8, workers=None)
    assert both == Placement(workers=8, cpus=0, gpus=1, threads=8)
    assert place([GPUS], device="cuda", threads=8, workers=3).workers == 3


def test_else_one_a_machine_that_fits_the_smallest() -> None:
    assert place([HEAD, SMALL, LARGE], device="auto", threads=8, workers=None) == Placement(
        workers=2, cpus=8, gpus=0, threads=8
    )
    assert place([GPUS], device="cpu", threads=8, workers=None).gpus == 0


def test_workers_that_share_a_machine_share_its_cpus_and_threads() -> None:
    assert place([SMALL], device="cpu", threads=4, workers=3) == Placement(workers=3, cpus=2, gpus=0, threads=1)
    assert place([SMALL, SMALL], device="cpu", threads=8, workers=3) == Placement(workers=3, cpus=4, gpus=0, threads=4)


@pytest.mark.parametrize(
    ("machines", "device", "workers", "sentence"),
    [
        ([SMALL], "cuda", None, "no GPU"),
        ([SMALL], "mps", None, "not on mps"),
        ([HEAD], "auto", None, "no CPU"),
        ([SMALL, SMALL], "auto", 17, "16 CPUs"),
        ([GPUS], "auto", 5, "4 GPUs"),
    ],
)
def test_what_the_cluster_does_not_have_is_said(
    machines: list[dict[str, float]], device: str, workers: int | None, sentence: str
) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        place(machines, device=device, threads=1, workers=workers)
