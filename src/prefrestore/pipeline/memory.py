"""What a pipeline needs of a device's memory, from its configuration alone: no weights, nothing allocated.

The components are built on torch's meta device, whose tensors have a shape and no contents, so parameters and weights
are exact. So is the language model's key-value cache, ``2 layers kv_heads head_dim slots B`` numbers, with a slot for
every position that `prefrestore.models.semantic.decoding` may write. The rest is an estimate: each stage's real
forward pass runs on meta tensors, and what it allocates is counted for as long as it lives. Attention is counted by its
plain kernel, which holds the whole matrix; fused ones need less. `ALLOWANCE` stands for what no shape tells.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prefrestore.models.offload import STRIDE, TILE
from prefrestore.models.semantic.decoding import FIRST_DRAFT, LONGEST_DRAFT
from prefrestore.models.texture.last_octave import FACTOR
from prefrestore.pipeline.components import build_components
from prefrestore.pipeline.presets import Preset

ALLOWANCE = 2**30
"""Bytes for the device's context, the libraries' workspaces and fragmentation: a rule of thumb."""

CHAT = 64
"""Text tokens of a chat: its frame and a short caption."""

WAYS = {
    "resident": "everything stays on the device",
    "model": "--offload model: one component at a time",
    "sequential": "--offload sequential: one layer at a time",
}
"""How the weights come to the device, the fastest first; both offloads send faces through the autoencoder singly."""

AUTOENCODING = ("all faces at once", "one face at a time", "tiles")


class Counter(TorchDispatchMode):
    """Inside, ``peak`` becomes the most bytes that tensors made inside held at a time; views take none."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # What comes in unknown was made outside.
        self._known.update(tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs)))
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self._known:
                self._known.add(key)
                self.live += size
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._gone, key, size)
        return out

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


@dataclass(frozen=True, kw_only=True)
class Component:
    """parameters: how many. weights: bytes, buffers included. largest_layer: bytes of the layer with the most."""

    name: str
    parameters: int
    weights: int
    largest_layer: int

    @classmethod
    def of(cls, name: str, module: nn.Module) -> Component:
        """Of a module on any device."""
        layers = [
            sum(t.nbytes for t in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)))
            for layer in module.modules()
        ]
        held = {id(t): t.nbytes for t in (*module.parameters(), *module.buffers())}
        return cls(
            name=name,
            parameters=sum(parameter.numel() for parameter in module.parameters()),
            weights=sum(held.values()),
            largest_layer=max(layers),
        )


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a restoration. works: whose weights it needs. cache: bytes, exact. activations: bytes, estimated.
    copied: bytes of weights that layer-by-layer offloading keeps beside the largest layer."""

    name: str
    works: str
    activations: int
    cache: int = 0
    copied: int = 0


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What it takes to restore ``batch`` faces at a time.

    stages: tokenize, write, estimate (where an LQ encoder stands behind the autoencoder's), connect, denoise, let
    through (where there is an input skip).
    autoencoding: encode and decode, by how the faces go through the autoencoder; one of `AUTOENCODING`, the first
    always, the others where it is diffusers' own. carried: bytes of what goes from stage to stage: faces, queries,
    condition, latents.
    """

    batch: int
    components: tuple[Component, ...]
    stages: tuple[Stage, ...]
    autoencoding: dict[str, tuple[Stage, ...]]
    carried: int

    def peak(self, way: str, *, tile: bool = False) -> tuple[int, str]:
        """The most bytes in use, `ALLOWANCE` left out, and the stage of it. way: one of `WAYS`."""
        parts = {part.name: part for part in self.components}
        total = sum(part.weights for part in self.components)
        mode = AUTOENCODING[2] if tile else AUTOENCODING[way != "resident"]
        needs = []
        for stage in (*self.stages, *self.autoencoding.get(mode, self.autoencoding[AUTOENCODING[0]])):
            part = parts[stage.works]
            held = {"resident": total, "model": part.weights, "sequential": part.largest_layer + stage.copied}[way]
            needs.append((held + stage.activations + stage.cache + self.carried, stage.name))
        return max(needs)

    def fits(self, way: str, card: int, *, tile: bool = False) -> bool:
        """Whether it runs on a card of so many bytes."""
        return self.peak(way, tile=tile)[0] + ALLOWANCE <= card


def empty_components(preset: Preset, dtype: torch.dtype) -> dict[str, Any]:
    """All networks that a face without a prompt needs, by the pipeline's names, all of them on torch's meta device."""
    aside = ("text_tokenizer", "steering")
    networks = [name for name in (*preset.components, *preset.optional) if name not in aside]
    parts = build_components(preset, dict.fromkeys(networks, "empty"), dtype=dtype)
    return {name: nn.Module.to(part, "meta") for name, part in parts.items()}


def plan_memory(preset: Preset, *, batch: int = 4, dtype: torch.dtype = torch.bfloat16) -> MemoryPlan:
    """What restoring ``batch`` faces at a time needs, with the LQ tokens as the draft of the clean ones."""
    parts = empty_components(preset, dtype)
    components = tuple(Component.of(name, part) for name, part in parts.items())
    tokenizer, autoencoder, transformer = (parts[name] for name in ("image_tokenizer", "autoencoder", "transformer"))
    side, tokens = preset.face_size, tokenizer.num_tokens

    def empty(*shape: int) -> Tensor:
        return torch.empty(batch, *shape, dtype=dtype, device="meta")

    look, faces = (empty(3, size, size) for size in (tokenizer.config.image_size, side))
    with torch.no_grad(), Counter() as tokenizing:
        tokenizer.encode(look)
    latent, *autoencoding = _autoencoding(autoencoder, faces)
    estimating = []
    if "lq_encoder" in parts:
        with torch.no_grad(), Counter() as correcting:
            parts["lq_encoder"].encode(latent, faces)
        estimating.append(Stage(name="estimate", works="lq_encoder", activations=correcting.peak))
    passing = []
    if "input_skip" in parts:
        with torch.no_grad(), Counter() as letting:
            parts["input_skip"](faces, faces)
        passing.append(Stage(name="let through", works="input_skip", activations=letting.peak))
    shown = faces
    if "last_octave" in parts:
        shown = empty(3, FACTOR * side, FACTOR * side)
        with torch.no_grad(), Counter() as enlarging:
            parts["last_octave"](faces, shown)
        passing.append(Stage(name="last octave", works="last_octave", activations=enlarging.peak))
    queries = empty(tokens + 1, parts["language_model"].config.hidden_size)
    copies = transformer.config.in_channels // latent.shape[1]
    with torch.no_grad(), Counter() as connecting:
        condition = parts["connectors"](queries, transformer.patch_embed(latent.repeat(1, copies, 1, 1)))
    with torch.no_grad(), Counter() as denoising:
        inputs, time = torch.cat([latent] * copies, dim=1), torch.empty(batch, device="meta")
        transformer(inputs, encoder_hidden_states=condition, timestep=time, return_dict=False)
    # In float32: the faces, and of latents the source, the state, the velocity and two that the solver remembers.
    carried = 4 * (shown.numel() + 5 * latent.numel()) + queries.nbytes + condition.nbytes
    return MemoryPlan(
        batch=batch,
        components=components,
        stages=(
            Stage(name="tokenize", works="image_tokenizer", activations=tokenizing.peak),
            _writing(parts["language_model"], batch, tokens, tokenizer.config.codebook_size),
            *estimating,
            Stage(name="connect", works="connectors", activations=connecting.peak),
            Stage(name="denoise", works="transformer", activations=denoising.peak),
            *passing,
        ),
        autoencoding=dict(zip(AUTOENCODING, autoencoding, strict=False)),
        carried=carried,
    )


def _autoencoding(autoencoder: Any, faces: Tensor) -> list[Any]:
    """The latents, and (encode, decode) for each of `AUTOENCODING` that the autoencoder can."""

    def stages(encoding: int, decoding: int) -> tuple[Stage, Stage]:
        # Pictures are clamped in float32: two of each at a time, at the end.
        decoding += 2 * 4 * faces.numel()
        return (
            Stage(name="encode", works="autoencoder", activations=encoding),
            Stage(name="decode", works="autoencoder", activations=decoding),
        )

    def count(pictures: Tensor) -> tuple[Tensor, int, int]:
        with torch.no_grad(), Counter() as encoding:
            latent = autoencoder.encode(pictures).latent
        with torch.no_grad(), Counter() as decoding:
            autoencoder.decode(latent)
        return latent, encoding.peak, decoding.peak

    latent, *peaks = count(faces)
    found = [latent, stages(*peaks)]
    if hasattr(autoencoder, "enable_slicing"):
        autoencoder.enable_slicing()
        found.append(stages(*count(faces)[1:]))
        _, encoding, decoding = count(faces[:1, :, :TILE, :TILE])
        # All tiles of a face, and its rows put together, beside the one that is worked on.
        decoded = round(((TILE / STRIDE) ** 2 + 1) * faces[0].nbytes) + faces.nbytes
        found.append(stages(encoding, decoding + decoded))
    return found


def _writing(model: Any, batch: int, tokens: int, codes: int) -> Stage:
    """The widest of two passes: the prompt with the first draft, and a long draft behind it."""
    longest = min(LONGEST_DRAFT, tokens)
    peaks = []
    for read, asked in ((CHAT + tokens + min(FIRST_DRAFT, longest), 1 + min(FIRST_DRAFT, longest)), (1 + longest,) * 2):
        ids = torch.zeros(batch, read, dtype=torch.long, device="meta")
        mask = torch.zeros(batch, 1, read, read, dtype=torch.bool, device="meta")
        with torch.no_grad(), Counter() as counter:
            states = model.model(
                input_ids=ids,
                attention_mask={"full_attention": mask},
                position_ids=ids,
                use_cache=False,
            ).last_hidden_state[:, -asked:]
            best = F.linear(states, model.lm_head.weight[:codes]).max(-1)
        del best
        peaks.append(counter.peak)
    config = model.config
    slots = CHAT + tokens + tokens + longest
    numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * slots * batch
    width = model.lm_head.weight.itemsize
    return Stage(
        name="write",
        works="language_model",
        activations=max(peaks),
        cache=numbers * width,
        copied=codes * config.hidden_size * width,
    )


def advice(plans: dict[int, MemoryPlan], card: int) -> tuple[MemoryPlan, str, bool] | None:
    """The first way to run on a card of so many bytes, as (plan, way, tiles): the fastest first.

    ``plans`` by batch. Everything resident comes before offloading, and a batch before a smaller one. None: no way.
    """
    for way in WAYS:
        for batch in sorted(plans, reverse=True):
            for tile in (False, True):
                if plans[batch].fits(way, card, tile=tile):
                    return plans[batch], way, tile
    return None
