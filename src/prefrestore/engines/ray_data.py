"""``--engine ray``: `prefrestore.restoration.batch` as one Ray Data operator, one model actor a device."""

from __future__ import annotations

import json
import math
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from prefrestore.engines.manifest import Entry, Manifest
from prefrestore.engines.rounds import drive
from prefrestore.errors import InvalidInputError, MissingDependencyError, PrefRestoreError
from prefrestore.files.fingerprints import InputFacts
from prefrestore.restoration.batch import Outcome, run_tasks
from prefrestore.restoration.plan import Task

# Photos of one Ray Data execution: each is a block of its own that the driver keeps account of, and the models are
# loaded once in that many photos.
AT_ONCE = 10_000

MakeRestorer = Callable[[], Callable[[Task], Outcome]]
"""Called once in every worker; loads the model there. What it gives may be called by several threads."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """workers: model actors. cpus, gpus: what each of them reserves. threads: for torch in each of them."""

    workers: int
    cpus: int
    gpus: int
    threads: int


def place(machines: Sequence[Mapping[str, float]], *, device: str, threads: int, workers: int | None) -> Placement:
    """Spread model actors over a cluster: one a GPU where there are GPUs (and the CPU is not asked for), else one a
    machine.

    Args:
        machines: resources of each, with Ray's names ``CPU`` and ``GPU``.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: torch's on one machine; actors that share a machine share them.
        workers: a number of actors other than that; on CPUs they may share a machine.

    Raises:
        InvalidInputError: there is no such device in the cluster, or more workers are asked for than it has devices.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InvalidInputError(f"--engine ray runs on cpu or cuda, not on {device}")
    with_gpu = [machine for machine in machines if machine.get("GPU", 0) >= 1]
    with_cpu = [machine for machine in machines if machine.get("CPU", 0) >= 1]
    if device == "cuda" and not with_gpu:
        raise InvalidInputError("--device cuda: the cluster has no GPU")
    if with_gpu and device != "cpu":
        most = sum(int(machine["GPU"]) for machine in with_gpu)
        wanted = most if workers is None else workers
        _check(wanted, most, "GPUs")
        return Placement(workers=wanted, cpus=0, gpus=1, threads=threads)
    if not with_cpu:
        raise InvalidInputError("the cluster has no CPU to run on")
    wanted = len(with_cpu) if workers is None else workers
    shared_by = math.ceil(wanted / len(with_cpu))
    smallest = min(int(machine["CPU"]) for machine in with_cpu)
    _check(wanted, len(with_cpu) * smallest, "CPUs on equal machines")
    return Placement(workers=wanted, cpus=smallest // shared_by, gpus=0, threads=max(1, threads // shared_by))


def _check(wanted: int, most: int, what: str) -> None:
    if not 1 <= wanted <= most:
        raise InvalidInputError(f"--workers {wanted}: the cluster has {most} {what}")


class PhotoWorker:
    """One model and the photos that come to it, one a batch; Ray keeps it alive between them.

    Raises InvalidInputError if this machine has another version of the package than the one that drives the run.
    """

    def __init__(self, make_restorer: MakeRestorer, version: str, threads: int) -> None:
        import torch

        from prefrestore import __version__

        if version != __version__:
            raise InvalidInputError(
                f"{socket.gethostname()} has prefrestore {__version__}, the run was started with {version}"
            )
        torch.set_num_threads(threads)
        self._restore = make_restorer()
        self._name = f"{socket.gethostname()}:{os.getpid()}"

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """``task`` (JSON) -> ``entry`` (JSON)."""
        import numpy as np

        return {"entry": np.array([self._entry(text).as_line() for text in batch["task"]], dtype=object)}

    def _entry(self, text: str) -> Entry:
        fields_of_task = json.loads(text)
        caption = fields_of_task.pop("caption")
        task = Task(**{name: Path(path) for name, path in fields_of_task.items()}, caption=caption)
        facts = InputFacts.of(task.source)
        (outcome,) = run_tasks([task], self._restore)
        return Entry(
            source=str(task.source),
            output=str(task.output),
            status=outcome.status,
            message=outcome.message,
            faces=outcome.faces,
            restored=outcome.restored,
            warnings=outcome.warnings,
            notes=outcome.notes,
            seconds=round(outcome.seconds, 3),
            worker=self._name,
            input=facts,
        )


def restore_on_ray(
    tasks: Sequence[Task],
    make_restorer: MakeRestorer,
    *,
    manifest: Manifest,
    settings: Mapping[str, Any],
    skip_existing: bool = False,
    jobs: int = 2,
    device: str = "auto",
    workers: int | None = None,
) -> Iterator[Outcome]:
    """`prefrestore.restoration.batch.run_tasks` on a cluster: the one that ``RAY_ADDRESS`` or ``ray start`` on this
    machine names, else one that is started here for the run. Outcomes come as the photos are finished.

    Args:
        jobs: photos that each worker has in hand at a time.
        manifest, settings, skip_existing: see `prefrestore.engines.rounds.drive`.
        device, workers: see `place`.

    Every path must mean the same file on all machines. Raises MissingDependencyError without Ray, InvalidInputError
    for what the cluster does not have, PrefRestoreError when the cluster breaks off or a worker cannot start.
    """
    import torch

    with ExitStack() as stack:
        # Not before there is something to do, and once for all rounds.
        connect = cache(lambda: stack.enter_context(_cluster()))

        def run(some: Sequence[Task], alone: bool) -> Iterator[Entry]:
            machines = [node["Resources"] for node in connect().nodes() if node["Alive"]]
            placement = place(machines, device=device, threads=torch.get_num_threads(), workers=workers)
            for start in range(0, len(some), AT_ONCE):
                part = some[start : start + AT_ONCE]
                yield from _one_round(part, make_restorer, placement, jobs=1 if alone else jobs)

        yield from drive(tasks, run, manifest=manifest, settings=settings, skip_existing=skip_existing)


def _one_round(
    tasks: Sequence[Task], make_restorer: MakeRestorer, placement: Placement, *, jobs: int
) -> Iterator[Entry]:
    """An entry for each photo whose worker lived; those of a worker that died are missing."""
    import ray
    import ray.data

    from prefrestore import __version__

    # A block a photo: a photo's entry arrives when the photo is finished, and a death costs the photos in hand only.
    rows = [{"task": _as_json(task)} for task in tasks]
    with warnings.catch_warnings():
        # Ray 2.64 will take the retries of actor tasks away; the extra `ray` stays below it.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        photos = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            PhotoWorker,
            fn_constructor_args=(make_restorer, __version__, placement.threads),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                size=min(placement.workers, len(rows)),
                max_tasks_in_flight_per_actor=jobs,
                max_concurrent_calls_per_actor=jobs,
                enable_true_multi_threading=True,
            ),
            num_cpus=placement.cpus,
            num_gpus=placement.gpus,
            # A dead worker comes back by itself, but what it had in hand is for `run_rounds` to try again.
            max_task_retries=0,
        )
    photos.context.max_errored_blocks = -1
    photos.context.enable_progress_bars = False
    photos.context.print_on_execution_start = False
    try:
        for batch in photos.iter_batches(batch_size=None, prefetch_batches=0):
            for line in batch["entry"]:
                yield Entry.from_line(line)
    except ray.exceptions.RayError as error:
        reason = next(line for line in reversed(str(error).splitlines()) if line.strip())
        raise PrefRestoreError(f"the run on Ray broke off: {reason.strip()}") from error


def _as_json(task: Task) -> str:
    paths = [field.name for field in fields(task) if field.name != "caption"]
    return json.dumps({**{name: os.path.abspath(getattr(task, name)) for name in paths}, "caption": task.caption})


@contextmanager
def _cluster() -> Iterator[Any]:
    """Ray, connected; a connection that was there before stays."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependencyError(
            f"--engine ray needs Ray Data, which cannot be imported ({error}): pip install 'prefrestore[ray]'"
        ) from error
    import logging

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield ray
        return
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()
