"""Weights that stay off the device until they are needed: diffusers' offloading, for work that is not a ``forward``.

The hooks of ``enable_model_cpu_offload`` and ``enable_sequential_cpu_offload`` fire when a module is called. The
pipeline also calls methods (``encode``, ``decode``) and reads weights directly; these helpers fire the hooks there, and
see to it that no component stays on the device after its work. Without hooks they do nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.hooks import CpuOffload
from torch import Tensor, nn

from prefrestore.errors import InvalidInputError

TILE, STRIDE = 256, 192
"""Pixels: side of the tiles that an autoencoder works on, and from one to the next."""


def place(pipeline: Any, device: str, *, offload: str = "none", tile: bool = False) -> Any:
    """Put a pipeline on a device, and return it.

    Args:
        offload: ``none`` keeps all its weights there; ``model`` brings one component at a time, ``sequential`` one
            layer at a time. With either, faces go through the autoencoder one by one, where it can do that.
        tile: they go through it in overlapping tiles of `TILE` px: less memory, and other numbers, since it then sees
            no more than a tile.

    Raises:
        InvalidInputError: there is no accelerator to offload from, or the autoencoder has no tiles.
    """
    if offload != "none" and torch.device(device).type == "cpu":
        raise InvalidInputError(
            f"--offload {offload} needs an accelerator whose memory it saves; here the model runs on the CPU"
        )
    autoencoder = pipeline.autoencoder
    if tile and not hasattr(autoencoder, "enable_tiling"):
        raise InvalidInputError(
            f"--tile is for the paper's autoencoder; a {type(autoencoder).__name__} takes a face of "
            f"{pipeline.face_size} px whole"
        )
    if tile:
        autoencoder.enable_tiling(TILE, TILE, STRIDE, STRIDE)
    if (tile or offload != "none") and hasattr(autoencoder, "enable_slicing"):
        autoencoder.enable_slicing()
    if offload == "none":
        return pipeline.to(device)
    ways = {"model": pipeline.enable_model_cpu_offload, "sequential": pipeline.enable_sequential_cpu_offload}
    ways[offload](device=device)
    return pipeline


@contextmanager
def at_work(module: nn.Module, part: nn.Module | None = None) -> Iterator[None]:
    """Inside, the weights of ``module`` are where it computes; afterwards they leave, if a hook brought them.

    ``part``: only this child of it is used inside, so only its weights come, unless all are there already.
    """
    hook = getattr(module, "_hf_hook", None)
    if hook is None:
        yield
        return
    if part is not None and isinstance(hook, CpuOffload):
        home = next(part.parameters()).device
        part.to(hook.execution_device)
        try:
            yield
        finally:
            part.to(home)
        return
    hook.pre_forward(module)
    try:
        yield
    finally:
        if isinstance(hook, CpuOffload):
            hook.init_hook(module)
        else:
            hook.post_forward(module, None)


def weight_rows(layer: nn.Linear, rows: slice) -> Tensor:
    """Rows of a layer's weight, where it computes; a copy when the weight itself leaves again."""
    with at_work(layer):
        part = layer.weight[rows]
        return part.clone() if hasattr(layer, "_hf_hook") else part


def compute_device(module: nn.Module) -> torch.device:
    """Where the module computes: where its weights are, or where hooks bring them."""
    for part in module.modules():
        device = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device)
    return next(module.parameters()).device
