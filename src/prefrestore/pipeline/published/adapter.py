"""The preference adapter: a PEFT folder, checked against its own configuration and a denoiser without weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrestore.errors import WeightsError
from prefrestore.models.adapter import CONFIG, WEIGHTS
from prefrestore.pipeline.published.tensors import FLOATS, SafetensorsFolder, listed

if TYPE_CHECKING:
    from diffusers import SanaTransformer2DModel
    from torch import nn

_PREFIX = "base_model.model."


def check(folder: Path, transformer: SanaTransformer2DModel) -> dict[str, Any]:
    """Compare an adapter with its own configuration and with the denoiser (which may be empty); its configuration.

    Raises:
        WeightsError: a file is missing or damaged, it is not a LoRA, or rank, targets or shapes do not agree.
    """
    from prefrestore.pipeline.published.components import read_json

    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise WeightsError(f"{folder / file}: this part of the preference adapter is missing")
    config = read_json(folder / CONFIG)
    rank, targets = config.get("r"), config.get("target_modules")
    if config.get("peft_type") != "LORA" or not isinstance(rank, int) or not isinstance(targets, list) or not targets:
        raise WeightsError(f"{folder / CONFIG}: this does not configure a LoRA with a rank and a list of targets")
    changed = ("rank_pattern", "alpha_pattern", "use_dora", "modules_to_save", "layers_to_transform")
    odd = [name for name in changed if config.get(name)]
    if odd or config.get("bias", "none") != "none":
        raise WeightsError(f"{folder / CONFIG}: {', '.join(odd) or 'bias'} is set, which this adapter's format has not")
    expected = _expected(transformer, targets, rank)
    lost = [target for target in targets if not any(_is(name, target) for name, _ in transformer.named_modules())]
    if lost:
        raise WeightsError(f"{folder / CONFIG}: the denoiser has no {listed(sorted(lost))}")
    infos = SafetensorsFolder(folder).infos
    wrong = {
        "missing": [key for key in expected if key not in infos],
        "unexpected": [key for key in infos if key not in expected],
        f"not of rank {rank} or of another shape": [
            f"{key} (is {list(infos[key].shape)}, not {list(shape)})"
            for key, shape in expected.items()
            if key in infos and infos[key].shape != shape
        ],
        "not floats": [key for key, info in infos.items() if info.dtype not in FLOATS],
    }
    told = [f"{len(keys)} {what}: {listed(keys)}" for what, keys in wrong.items() if keys]
    if told:
        raise WeightsError(f"{folder}: the preference adapter does not fit; {'; '.join(told)}")
    return config


def _expected(transformer: nn.Module, targets: list[str], rank: int) -> Mapping[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in transformer.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.ndim != 2 or not any(_is(name, target) for target in targets):
            continue
        shapes[f"{_PREFIX}{name}.lora_A.weight"] = (rank, weight.shape[1])
        shapes[f"{_PREFIX}{name}.lora_B.weight"] = (weight.shape[0], rank)
    return shapes


def _is(name: str, target: str) -> bool:
    """PEFT's rule: a target is a module's whole name or the end of it after a dot."""
    return name == target or name.endswith(f".{target}")
