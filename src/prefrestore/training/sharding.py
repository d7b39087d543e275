"""Parameters and moments that lie in pieces on several devices, each as one whole tensor."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only a piece of it."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, its pieces gathered from all processes where it is sharded (all of them must call)."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def piece(tensor: Tensor) -> Tensor:
    """What this process holds of it, sharing its memory."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def cut_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, cut and placed as ``like`` is (all processes must call)."""
    if not is_sharded(like):
        return value.to(like.device)
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


class Moments:
    """The optimiser's moments by parameter. `prefrestore.training.deepspeed` has the same for DeepSpeed.

    Args:
        optimizer: what Accelerate made of the optimiser.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def get(self, parameter: Tensor) -> dict[str, Tensor]:
        """The tensors, cut like the parameter or whole; none before its first step. Every process must call."""
        return dict(self.optimizer.state.get(parameter, {}))

    def put(self, parameter: Tensor, moments: Mapping[str, Tensor]) -> None:
        """Go on from whole tensors. Every process must call."""
        cut = {key: value if key == "step" else cut_like(value, parameter) for key, value in moments.items()}
        self.optimizer.state[parameter] = cut

    def parameters_were_read(self) -> None:
        """To be called when a checkpoint's parameters are in place."""
