"""A GPU for machines that have none: tensors that say ``gpu:0`` and compute on the CPU.

Every operation on them first runs in torch's `FakeTensorMode` on fake tensors of that device, which holds torch's own
rules of what may meet what, and raises where devices are mixed. Then it runs on the values, so that a whole program can
go on: with loops that depend on values, files that are written, and losses that are numbers.

The device itself is torch's backend for Python (its ``privateuseone``): autograd refuses ``cuda`` where torch was built
without it. It stays for the life of the process, so this is for a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch._subclasses import fake_tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


_setup_privateuseone_for_python_backend("gpu", _Backend())
GPU = torch.device("gpu:0")
RULES = fake_tensor.FakeTensorMode(allow_non_fake_inputs=True)
UNKNOWN_BEFORE = (
    fake_tensor.DataDependentOutputException,
    fake_tensor.DynamicOutputShapeException,
    fake_tensor.UnsupportedOperatorException,
)
"""What depends on values: the fake operation cannot tell; see `on_gpu`."""
_generators: dict[int, torch.device] = {}


class OnGPU(torch.Tensor):
    """A tensor on the pretended GPU; ``values`` are its values, on the CPU."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls: type[OnGPU], values: torch.Tensor) -> OnGPU:
        made = torch.Tensor._make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype,
            layout=values.layout, device=GPU,
        )  # fmt: skip
        made.values = values
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})

    def tolist(self) -> Any:
        """Torch refuses it for subclasses."""
        return self.values.tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        """Files of weights ask it which tensors share their memory."""
        return self.values.untyped_storage()


class Generator(torch.Generator):
    """A generator of any device: its numbers are the CPU's."""

    def __new__(cls, device: str | torch.device = "cpu") -> Generator:
        made = super().__new__(cls, "cpu")
        _generators[made._cdata] = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return _generators[self._cdata]


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation's result, its tensors on the device where torch would leave them."""
    leaves, tree = pytree.tree_flatten((args, kwargs))
    if func is torch.ops.aten._fused_sdp_choice.default:
        return 0  # plain mathematics: the CPU has no other way that a GPU has too
    asked = kwargs.get("device")
    if not any(isinstance(leaf, OnGPU) for leaf in leaves) and (asked is None or torch.device(asked).type == "cpu"):
        return func(*args, **kwargs)
    places = devices(func, leaves, tree)
    wrapped = {id(leaf.values): leaf for leaf in leaves if isinstance(leaf, OnGPU)}
    plain = [leaf.values if isinstance(leaf, OnGPU) else leaf for leaf in leaves]
    plain = [torch.device("cpu") if isinstance(leaf, torch.device) else leaf for leaf in plain]
    plain_args, plain_kwargs = pytree.tree_unflatten(plain, tree)
    made, shape = pytree.tree_flatten(func(*plain_args, **plain_kwargs))
    out = []
    for k, value in enumerate(made):
        if isinstance(value, torch.Tensor) and id(value) in wrapped:
            value = wrapped[id(value)]
        elif isinstance(value, torch.Tensor) and not isinstance(value, OnGPU) and places[k % len(places)] == GPU.type:
            value = OnGPU(value)
        out.append(value)
    return pytree.tree_unflatten(out, shape)


def devices(func: Any, leaves: list[Any], tree: Any) -> list[str]:
    """The kind of device of each result, by torch's fake tensors; raises where they say that devices are mixed."""
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    for leaf in leaves:
        if isinstance(leaf, torch._C.Generator):
            wanted = {tensor.device.type for tensor in tensors} or {GPU.type}
            held = _generators.get(leaf._cdata, torch.device("cpu"))
            assert wanted == {held.type}, f"{func}: a generator of {held.type} for tensors of {wanted}"
    try:
        with RULES:
            fakes = [fake(leaf) for leaf in leaves]
            args, kwargs = pytree.tree_unflatten(fakes, tree)
            made = pytree.tree_leaves(func(*args, **kwargs))
    except UNKNOWN_BEFORE:
        return [on_gpu(func, tensors)]
    return [value.device.type if isinstance(value, torch.Tensor) else "" for value in made] or [""]


def fake(leaf: Any) -> Any:
    """The argument for a fake operation."""
    if isinstance(leaf, torch.Tensor):
        return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device=leaf.device)
    return None if isinstance(leaf, torch._C.Generator) else leaf


def on_gpu(func: Any, tensors: list[torch.Tensor]) -> str:
    """The device that all tensors share; indices may lie on the CPU, as on a GPU."""
    kinds = {tensor.device.type for tensor in tensors if tensor.dim()}
    indexing = "index" in str(func)
    assert len(kinds) < 2 or (indexing and tensors[0].device == GPU), f"{func} of mixed devices: {kinds}"
    return GPU.type if GPU.type in {tensor.device.type for tensor in tensors} else "cpu"


class _Factories(TorchDispatchMode):
    """Catches what makes tensors, or moves them, without having one on the GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


@contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """Inside, there is a GPU to move to, and Accelerate runs on it."""
    from accelerate.state import AcceleratorState

    before = torch.__future__.get_swap_module_params_on_conversion()
    lifted = torch._C._only_lift_cpu_tensors()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "Generator", Generator)
        patch.setenv("ACCELERATE_TORCH_DEVICE", str(GPU))
        AcceleratorState._reset_state(reset_partial_state=True)
        # Modules that move keep their parameters' identity: optimisers hold those.
        torch.__future__.set_swap_module_params_on_conversion(True)
        # torch.tensor(..., device=...) is made on the CPU and moved, which can be caught.
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            with _Factories():
                yield GPU
        finally:
            torch._C._set_only_lift_cpu_tensors(lifted)
            torch.__future__.set_swap_module_params_on_conversion(before)
            AcceleratorState._reset_state(reset_partial_state=True)
