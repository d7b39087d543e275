"""Several processes, one run: who does what, and parameters that lie in pieces on several devices.

Accelerate starts and joins the processes (`accelerate launch`, training/accelerate/*.yaml). One process needs none of
this and goes through it unchanged.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from prefrestore.errors import InvalidInputError, MissingDependencyError
from prefrestore.training.sharding import Moments, is_sharded, whole

PATIENCE = timedelta(hours=12)
"""How long processes wait for the main one, which fills caches alone."""
_trackers: list[Any] = []
"""Those of every run so far; `ended_in_order` closes them."""
_wrapped: WeakSet[nn.Module] = WeakSet()
"""What Accelerate made of the modules of every run."""


def _meeting() -> dict[str, Any]:
    """What launched processes must be told where there is no accelerator: Accelerate would leave each alone."""
    if "LOCAL_RANK" not in os.environ or torch.accelerator.is_available():
        return {}
    # Accelerate leaves DeepSpeed out on a CPU that it is told of; the backend alone is enough there.
    return {"backend": "gloo"} if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true" else {"cpu": True}


def new_accelerator(tracker: str = "none", folder: Path | None = None) -> Accelerator:
    """Accelerate's view of this process, and its tracker if one is wanted.

    Raises:
        InvalidInputError: no such tracker, or a way of sharding that `Trainer` cannot keep checkpoints for.
        MissingDependencyError: the tracker's package is absent.
    """
    # Some losses leave parameters out: an adapter that no sample of a batch reached, codes without a face.
    meeting = _meeting()
    group = InitProcessGroupKwargs(backend=meeting.get("backend"), timeout=PATIENCE)
    handlers = [group, DistributedDataParallelKwargs(find_unused_parameters=True)]
    settings: dict[str, Any] = {"cpu": "cpu" in meeting, "kwargs_handlers": handlers}
    if tracker != "none":
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

        if tracker not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise InvalidInputError(f"there is no tracker '{tracker}': take none, {known}")
        if tracker not in [kind.value for kind in get_available_trackers()]:
            raise MissingDependencyError(f"the tracker {tracker} is not installed; --tracker none does without it")
        settings |= {"log_with": tracker, "project_dir": folder}
    accelerator = Accelerator(**settings)
    if accelerator.distributed_type == DistributedType.MULTI_CPU and os.environ.get("ACCELERATE_USE_FSDP") == "true":
        # Accelerate shards on GPUs only and would copy instead, without a word; torch shards on CPUs just as well.
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise InvalidInputError("sharding is FSDP2 here: set fsdp_version to 2, as training/accelerate/fsdp.yaml does")
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        from prefrestore.training.deepspeed import check_deepspeed

        check_deepspeed(accelerator)
    if tracker != "none":
        accelerator.init_trackers("tracker")
        _trackers.extend(accelerator.trackers)
    return accelerator


@contextmanager
def main_process_first() -> Iterator[None]:
    """The main process goes through the block alone, then the others: for caches that one writes and all read."""
    with PartialState(**_meeting(), timeout=PATIENCE).main_process_first():
        yield


def is_main_process() -> bool:
    """Whether this process is the one that writes."""
    return os.environ.get("RANK", "0") == "0"


def log_on_main(text: str) -> None:
    """Print a line, once for all processes."""
    if is_main_process():
        print(text, flush=True)  # noqa: T201


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Around all that a program does: what its run has started ends with the block, also on errors and Ctrl-C.

    The processes wait for each other, trackers write what they hold, and the process group goes with its threads. One
    of those that outlived the program could ask for an interpreter that is no more, and abort the process.
    """
    try:
        yield
        _meet()
    except SystemExit as end:
        if not end.code:
            _meet()
        raise
    finally:
        while _trackers:
            _trackers.pop().finish()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
            _forget_group()
            gc.collect()


def _forget_group() -> None:
    """The group's threads end with the last who holds it: wrapped modules, which an error may keep, and meshes."""
    for module in list(_wrapped):
        for name in ("reducer", "logger", "process_group"):
            vars(module).pop(name, None)
    _forget_meshes()


def _forget_meshes() -> None:
    """Empty torch's caches of how sharded tensors were cut; versions of torch that lack one of them are passed over."""
    tensor = sys.modules.get("torch.distributed.tensor")
    for dotted in (
        "_redistribute.clear_redistribute_planner_cache",
        "_redistribute._gen_transform_infos.cache_clear",
        "_collective_utils.MeshTopoInfo.build_from_mesh.cache_clear",
    ):
        with suppress(AttributeError):
            attrgetter(dotted)(tensor)()
    getattr(torch._C, "_clear_DTensor_sharding_propagator_cache", lambda: None)()


def _meet() -> None:
    if torch.distributed.is_initialized():
        PartialState().wait_for_everyone()


class _MicroBatches(torch.utils.data.Dataset):
    """The micro-batches at ``numbers``, made when asked for: worker processes may fetch ahead without changing them."""

    def __init__(self, make_batch: Callable[[int], Mapping[str, Any]], numbers: Sequence[int]) -> None:
        self.make_batch, self.numbers = make_batch, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.make_batch(self.numbers[index])


@contextmanager
def micro_batches(
    make_batch: Callable[[int], Mapping[str, Any]], numbers: Sequence[int], workers: int
) -> Iterator[Iterator[Mapping[str, Any]]]:
    """The micro-batches at ``numbers``, one after the other; the worker processes that make them end with the block."""
    loader = torch.utils.data.DataLoader(_MicroBatches(make_batch, numbers), batch_size=None, num_workers=workers)
    batches = iter(loader)
    try:
        yield batches
    finally:
        if workers:
            # As torch does when the iterator is forgotten, which may be late: an error keeps it.
            batches._shutdown_workers()  # type: ignore[attr-defined]


def any_process(accelerator: Accelerator, flag: bool) -> bool:
    """Whether the flag is up in any process: all of them learn the same."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum") > 0)


def mean_over_processes(accelerator: Accelerator, values: dict[str, float]) -> dict[str, float]:
    """Each value's mean over the processes."""
    if accelerator.num_processes == 1:
        return values
    stacked = torch.tensor(list(values.values()), dtype=torch.float64, device=accelerator.device)
    return dict(zip(values, accelerator.reduce(stacked, "mean").tolist(), strict=True))


def wrap_repeated_blocks(objective: nn.Module) -> None:
    """Tell Accelerate what FSDP gathers at a time: each repeated block that its library says not to split."""
    named = {name for module in objective.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    rows = (module for module in objective.modules() if isinstance(module, nn.ModuleList))
    objective._no_split_modules = sorted({type(block).__name__ for row in rows for block in row} & named)  # type: ignore[assignment]


def prepare(
    accelerator: Accelerator, objective: nn.Module, optimizer: torch.optim.Optimizer, *, clip: float, low: bool
) -> tuple[nn.Module, torch.optim.Optimizer, Moments]:
    """Accelerate's module and optimiser, and the latter's moments.

    ``clip`` (the largest norm of a gradient) and ``low`` (bf16 by autocast) are for DeepSpeed, which does both itself.
    """
    wrap_repeated_blocks(objective)
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        from prefrestore.training.deepspeed import prepare_deepspeed

        return prepare_deepspeed(accelerator, objective, optimizer, clip=clip, low=low)
    module, optimizer = accelerator.prepare(objective, optimizer)
    _wrapped.add(module)
    return module, optimizer, Moments(optimizer)


def save_whole(
    accelerator: Accelerator, tensors: Iterable[tuple[str, Tensor]], file: Path, about: dict[str, str]
) -> None:
    """Write whole tensors, whatever they are cut into here, from the main process; every process must call.

    One file, written beside and renamed: a kill at any moment leaves the previous one whole.
    """
    about = about | {"written_by": f"{accelerator.distributed_type.value}, {accelerator.num_processes} processes"}
    kept: dict[str, Tensor] = {}
    for key, value in tensors:
        gathered = whole(value.detach())
        if accelerator.is_main_process:
            kept[key] = gathered.cpu().contiguous()
    if accelerator.is_main_process:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_suffix(".part")
        save_file(kept, beside, about)
        os.replace(beside, file)


@contextmanager
def whole_parameters(module: nn.Module) -> Iterator[None]:
    """Sharded parameters gathered for the duration of the block, so that parts of the module can be used and saved.

    Every process must enter, and pass through the same forward passes inside.
    """
    sharded: list[tuple[nn.Module, str, nn.Parameter]] = []
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None and is_sharded(parameter):
                sharded.append((owner, name, parameter))
    for owner, name, parameter in sharded:
        owner._parameters[name] = nn.Parameter(whole(parameter.detach()), requires_grad=parameter.requires_grad)
    try:
        yield
    finally:
        # A forward pass may have left parts gathered, with the values of this block.
        for part in module.modules():
            if sharded and isinstance(part, FSDPModule):
                part.reshard()
        for owner, name, parameter in sharded:
            owner._parameters[name] = parameter


def write_once(accelerator: Accelerator, write: Callable[[], object]) -> None:
    """Call ``write`` on the main process while the others wait."""
    if accelerator.is_main_process:
        write()
    accelerator.wait_for_everyone()
