"""Read the tensors of a weight file that others published, without ever running what a pickle asks for."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from prefrestore.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

# Where training programs put the weights inside a checkpoint, in the order in which they are looked for.
_INSIDE = ("state_dict", "params_ema", "params")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file, or of a file of ``torch.save`` read with ``weights_only=True``, by name.

    Of a checkpoint only the weights are taken (its ``state_dict``, ``params_ema`` or ``params``), and the prefix
    ``module.``, which parallel training adds, is left out.

    Raises:
        WeightsError: the file cannot be read, asks for code to be run, or holds no tensors by name.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path} cannot be read as weights: {reason}") from error
    if isinstance(content, dict):
        content = next((content[key] for key in _INSIDE if isinstance(content.get(key), dict)), content)
        found = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
        if found:
            return {str(name).removeprefix("module."): value for name, value in found.items()}
    raise WeightsError(f"{path} holds no weights by their names")


def read_into(network: nn.Module, path: Path, what: str, *, without: tuple[str, ...] = ()) -> None:
    """Fill a network from a file; tensors whose names begin with one of ``without`` are passed over.

    Raises:
        WeightsError: the file cannot be read, or does not hold ``what``.
    """
    try:
        held = read_tensors(path)
        load_tensors(network, {name: value for name, value in held.items() if not name.startswith(without)})
    except (RuntimeError, WeightsError) as error:
        reason = " ".join(str(error).removeprefix(f"{path} ").split())[:200]
        raise WeightsError(f"{path} does not hold {what}: {reason}") from error


def load_tensors(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Give a network its tensors, all of them; the counters of batch normalisation, which older files lack, may miss.

    Raises:
        RuntimeError: one is missing, left over or of another shape.
    """
    own = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    network.load_state_dict(own | state)
