"""The preference adapter: a low-rank change (LoRA, arXiv 2106.09685) of the denoiser, as a PEFT folder.

Files and key names are PEFT's own (``adapter_config.json``, ``adapter_model.safetensors``), so that the published
adapter loads and ours can be used elsewhere.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prefrestore.errors import InvalidInputError, WeightsError

if TYPE_CHECKING:
    from diffusers import SanaTransformer2DModel

ATTENTION = tuple(f"{block}.{layer}" for block in ("attn1", "attn2") for layer in ("to_q", "to_k", "to_v", "to_out.0"))
INPUT = "patch_embed.proj"
TARGETS = {"attention": ATTENTION, "input": (INPUT,), "attention+input": (*ATTENTION, INPUT)}
"""Which layers an adapter changes. The noise enters the denoiser at the patch embedding, and nowhere else."""
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
CHECKPOINT_LORA = "lora"
"""Where the published training's ``checkpoint-N`` keeps its adapter; an ``old`` beside it is not read."""
_PREFIX = "base_model.model."


def add_adapter(
    transformer: SanaTransformer2DModel,
    name: str,
    *,
    rank: int,
    alpha: int,
    targets: str = "attention",
    noise_gain: float = 1.0,
    seed: int = 0,
) -> None:
    """A new adapter, which becomes the active one; at a noise gain of 1 it changes nothing yet (second factors 0).

    Args:
        rank, alpha: the change of a layer is ``alpha / rank * B A`` with ``A`` of ``rank`` rows. That of the patch
            embedding has the same ratio, and `noise_rows` for ``A``.
        targets: a name of `TARGETS`.
        noise_gain: how much of the noise the patch embedding lets in at first, 0 to 1.
        seed: of the first factors.

    Raises:
        InvalidInputError: no such targets, or a gain out of range, without the input among the targets, or for a
            denoiser that is not also given the LQ latents and would lose what it restores with the noise.
    """
    from peft import LoraConfig

    if targets not in TARGETS:
        raise InvalidInputError(f"an adapter's targets are one of {', '.join(TARGETS)}, not '{targets}'")
    check_noise_gain(transformer, targets, noise_gain)
    config = transformer.config
    wide = {INPUT: config.out_channels * config.patch_size**2} if INPUT in TARGETS[targets] else {}
    lora = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(TARGETS[targets]),
        rank_pattern=wide,
        alpha_pattern={layer: alpha * count / rank for layer, count in wide.items()},
        init_lora_weights=True,
    )
    with torch.random.fork_rng(devices=[]), _knowing_what_we_do():
        torch.manual_seed(seed)  # PEFT draws from the global generator
        transformer.add_adapter(lora, adapter_name=name)
    if wide:
        set_noise_gain(transformer, name, noise_gain)
    transformer.set_adapter(name)


def check_noise_gain(transformer: SanaTransformer2DModel, targets: str, noise_gain: float) -> None:
    """Raise InvalidInputError for a gain that an adapter with these targets cannot have on this denoiser."""
    if not 0 <= noise_gain <= 1:
        raise InvalidInputError(f"a noise gain lies in 0..1, not {noise_gain}")
    config = transformer.config
    if noise_gain != 1 and (INPUT not in TARGETS[targets] or config.in_channels == config.out_channels):
        raise InvalidInputError("a noise gain needs the input among the targets, and LQ latents in that input")


def set_noise_gain(transformer: SanaTransformer2DModel, name: str, noise_gain: float) -> None:
    """Give the patch embedding's part of an adapter that has one this gain, and nothing else, in place."""
    layer = transformer.get_submodule(INPUT)
    layer.lora_A[name].weight.data.copy_(noise_rows(transformer))
    noisy = layer.base_layer.weight.data[:, : transformer.config.out_channels].flatten(1)[:, :, None, None]
    layer.lora_B[name].weight.data.copy_((noise_gain - 1) * 2**0.5 / layer.scaling[name] * noisy)


def noise_rows(transformer: SanaTransformer2DModel) -> Tensor:
    """What the patch embedding's adapter looks at in the beginning: the noise in each number of a patch.

    The noisy latents of a patch, less the LQ latents where the denoiser's input has those too: at t = 1 of a flow that
    starts from them, the noise itself. A change of this alone shuts the noise out or lets it in and leaves what the
    denoiser does with the LQ latents as it is. Shape (C p^2, channels, p, p), with orthonormal rows.
    """
    config = transformer.config
    noisy, patch = config.out_channels, config.patch_size
    eye = torch.eye(noisy * patch**2).reshape(-1, noisy, patch, patch)
    return eye if config.in_channels == noisy else torch.cat([eye, -eye], dim=1) / 2**0.5


@contextmanager
def _knowing_what_we_do() -> Iterator[None]:
    """PEFT warns of a second adapter; two are what on-policy training needs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        yield


def adapter_tensors(transformer: SanaTransformer2DModel, name: str) -> dict[str, Tensor]:
    """The adapter's parameters themselves (not copies), by the name of their layer and factor."""
    marker = f".{name}."
    return {key.replace(marker, "."): value for key, value in transformer.named_parameters() if marker in key}


def adapter_names(transformer: SanaTransformer2DModel) -> list[str]:
    """The adapters that the denoiser carries."""
    return list(getattr(transformer, "peft_config", {}))


@contextmanager
def using_adapter(transformer: SanaTransformer2DModel, name: str | None) -> Iterator[None]:
    """The denoiser with this adapter, or with none, for the duration of the block; then with the one before."""
    before = transformer.active_adapters()
    try:
        if name is None:
            transformer.disable_adapters()
        else:
            transformer.set_adapter(name)
        yield
    finally:
        transformer.enable_adapters()
        transformer.set_adapter(before)


def save_adapter(transformer: SanaTransformer2DModel, name: str, folder: Path, dtype: torch.dtype) -> None:
    """Write the adapter as a PEFT folder; each file is written beside its place and renamed into it."""
    from safetensors.torch import save

    from prefrestore.files.atomic import written_beside

    tensors = adapter_tensors(transformer, name)
    values = {_PREFIX + key: value.detach().cpu().to(dtype).contiguous() for key, value in tensors.items()}
    with written_beside(folder / WEIGHTS) as part:
        part.write_bytes(save(values, metadata={"format": "pt"}))
    config = transformer.peft_config[name].to_dict() | {"inference_mode": True, "base_model_name_or_path": None}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    with written_beside(folder / CONFIG) as part:
        part.write_text(json.dumps(plain, indent=2, sort_keys=True, default=str) + "\n")


@contextmanager
def preference_apart(pipeline: Any, folder: Path | str) -> Iterator[None]:
    """While a pipeline is saved: its denoiser without adapters, and the active one in ``folder/preference``.

    A denoiser that carries adapters has other key names, under which nobody would find its weights again.
    """
    carrying = pipeline.transformer
    names = adapter_names(carrying)
    if not names:
        yield
        return
    plain = type(carrying).from_config(carrying.config)
    state = {key: value for key, value in carrying.state_dict().items() if ".lora_" not in key}
    plain.load_state_dict({key.replace(".base_layer.", "."): value for key, value in state.items()}, assign=True)
    try:
        pipeline.transformer = plain
        yield
    finally:
        pipeline.transformer = carrying
    active = carrying.active_adapters()
    save_adapter(carrying, active[0], Path(folder) / "preference", carrying.dtype)


def adapter_folder(folder: Path) -> Path:
    """Where the adapter lies: ``folder``, or its ``lora`` where a training's ``checkpoint-N`` is named."""
    inside = folder / CHECKPOINT_LORA
    return inside if inside.is_dir() and not (folder / CONFIG).is_file() else folder


def load_adapter(transformer: SanaTransformer2DModel, folder: Path, name: str = "preference") -> None:
    """Put the adapter of a PEFT folder (see `adapter_folder`) on the denoiser and make it the active one.

    Raises:
        WeightsError: a file is missing or broken, or its rank, layers or shapes are not those that it states.
    """
    from peft import LoraConfig
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = adapter_folder(folder)
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise WeightsError(f"{folder / file}: the preference adapter is missing; a base model is not used instead")
    try:
        config = LoraConfig.from_pretrained(str(folder))
        stored = load_file(folder / WEIGHTS)
    except (SafetensorError, ValueError, TypeError, KeyError, OSError) as error:
        raise WeightsError(f"{folder}: the preference adapter cannot be read ({error})") from error
    stored = {key.removeprefix(_PREFIX): value for key, value in stored.items()}
    with torch.random.fork_rng(devices=[]), _knowing_what_we_do():
        try:
            transformer.add_adapter(config, adapter_name=name)
        except ValueError as error:
            raise WeightsError(f"{folder}: the preference adapter does not fit this denoiser ({error})") from error
    mine = adapter_tensors(transformer, name)
    if problems := _differences(mine, stored):
        transformer.delete_adapters(name)
        raise WeightsError(f"{folder / WEIGHTS}: the adapter does not fit: {problems}")
    with torch.no_grad():
        for key, value in mine.items():
            value.copy_(stored[key])
            value.requires_grad_(False)
    transformer.set_adapter(name)
    for value in mine.values():
        value.requires_grad_(False)


def _differences(mine: dict[str, Tensor], stored: dict[str, Tensor]) -> str:
    """What is missing, unexpected or of another shape, in words; empty when all is as it should be."""
    shapes = [
        f"{key} is {tuple(stored[key].shape)} instead of {tuple(mine[key].shape)}"
        for key in sorted(mine.keys() & stored.keys())
        if mine[key].shape != stored[key].shape
    ]
    kinds = {
        "missing": sorted(mine.keys() - stored.keys()),
        "unexpected": sorted(stored.keys() - mine.keys()),
        "mis-shaped": shapes,
    }
    return "; ".join(
        f"{kind}: {', '.join(keys[:3])}" + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        for kind, keys in kinds.items()
        if keys
    )
