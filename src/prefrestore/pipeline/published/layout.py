"""Which key of a published file belongs to which component, and that none is left over, missing or of a wrong kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from prefrestore.errors import WeightsError
from prefrestore.pipeline.published.tensors import FLOATS, TensorSource, listed

if TYPE_CHECKING:
    from torch import nn

    from prefrestore.models.semantic.ta_tok import TATok

Keys = dict[str, str]
"""A component's own name of a tensor -> its key in the source."""

PREFIXES = {
    "image_tokenizer": "model.vision_tower.vision_tower.",
    "transformer": "model.sana.",
    "autoencoder": "model.sana_vae.",
}
CONNECTORS = ("diffusion_connector", "vae_connector")

# Of the tokenizer's file: its way back to pictures, buffers that have no effect at run time, a pooling head, and what
# only its training used.
NOT_NEEDED = (
    "decoder.",
    "decode_task_layer.",
    "bottleneck.out_linear.",
    "scale_layer.shift",
    "scale_layer.scale",
    "encoder.post_layernorm.",
    "encoder.head.",
    "encoder.embeddings.position_ids",
    "teacher.",
    "bottleneck.regularizer.stochastic_temperature_inv",
)

# The frozen copy of the autoencoder that encoded the targets of training; restoring does not use it.
TARGET_ENCODER = ("fixed_vae.", "model.fixed_vae.")


def split(keys: Iterable[str]) -> dict[str, Keys]:
    """The keys of an assembled model by component; what has no prefix of its own is the language model's.

    Keys of `TARGET_ENCODER` belong to none.
    """
    parts: dict[str, Keys] = {name: {} for name in (*PREFIXES, "connectors", "language_model")}
    for key in keys:
        if key.startswith(TARGET_ENCODER):
            continue
        owner = next((name for name, prefix in PREFIXES.items() if key.startswith(prefix)), None)
        if owner is not None:
            parts[owner][key.removeprefix(PREFIXES[owner])] = key
        elif key.startswith(tuple(f"model.{name}." for name in CONNECTORS)):
            parts["connectors"][key.removeprefix("model.")] = key
        else:
            parts["language_model"][key] = key
    return parts


def drop_unneeded(keys: Keys, tokenizer: TATok) -> Keys:
    """The keys of TA-Tok's file without `NOT_NEEDED` and the vision layers behind the one that is read."""
    total, built = tokenizer.config.num_hidden_layers, tokenizer.encoder.config.num_hidden_layers
    unread = tuple(f"encoder.encoder.layers.{index}." for index in range(built, total))
    return {name: key for name, key in keys.items() if not name.startswith((*NOT_NEEDED, *unread))}


def share_norm(keys: Keys) -> Keys:
    """A file may hold the two connectors' one shared norm under either name, or under both."""
    names = [f"{name}.3.weight" for name in CONNECTORS]
    held = [keys[name] for name in names if name in keys]
    return {**{name: held[0] for name in names if held}, **keys}


def norms_differ(source: TensorSource, keys: Keys) -> bool:
    """Whether a file holds two norms for the connectors that are not equal; `share_norm` keeps each for its own."""
    held = [tensor for _, tensor in source.read(keys[f"{name}.3.weight"] for name in CONNECTORS)]
    return len(held) == 2 and not bool((held[0] == held[1]).all())


def check(source: TensorSource, parts: Mapping[str, tuple[nn.Module, Keys]]) -> None:
    """Compare every component's tensors with what the source holds under the keys that were found for it.

    Raises:
        WeightsError: tensors are missing, left over, mis-shaped, or not of a float type; all kinds are listed.
    """
    missing, unexpected, shapes, dtypes = [], [], [], []
    for part, (module, keys) in parts.items():
        expected = module.state_dict()
        missing += [f"{part}: {name}" for name in expected if name not in keys]
        unexpected += [key for name, key in keys.items() if name not in expected]
        for name, key in keys.items():
            info = source.infos[key]
            if name in expected and tuple(expected[name].shape) != info.shape:
                shapes.append(f"{key} (is {list(info.shape)}, not {list(expected[name].shape)})")
            if name in expected and info.dtype not in FLOATS:
                dtypes.append(f"{key} ({info.dtype})")
    told = (("missing", missing), ("unexpected", unexpected), ("of a wrong shape", shapes), ("not floats", dtypes))
    wrong = [f"{len(names)} {what}: {listed(names)}" for what, names in told if names]
    if wrong:
        raise WeightsError(f"{source.name}: the weights do not fit the model; {'; '.join(wrong)}")
