"""Offloading: every component is on the device when it works, alone, and gone afterwards; the numbers stay the same.

One CPU stands for both places: a module that was last sent to ``cpu:0`` is on the device, one sent to ``cpu`` is not.
"""

from collections.abc import Iterator
from typing import Any

import accelerate
import numpy as np
import pytest
import torch
from accelerate.hooks import CpuOffload
from diffusers import AutoencoderDC
from torch import Tensor, nn

from prefrestore.errors import InvalidInputError
from prefrestore.models.offload import STRIDE, compute_device, place
from prefrestore.pipeline.build import build_pipeline
from prefrestore.pipeline.pipeline import PrefRestorePipeline
from prefrestore.pipeline.presets import load_preset

FACES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
DEVICE = torch.device("cpu:0")


def pipeline_of(published: bool) -> PrefRestorePipeline:
    """Tiny; in the published layout the LQ image is encoded by the autoencoder, and the flow starts from noise."""
    pipeline = build_pipeline(load_preset("tiny"))
    if published:
        pipeline.register_modules(lq_encoder=None)
        pipeline.register_to_config(start="noise", guidance_scale=2.0, solver="dpm")
    return pipeline


def restored(pipeline: PrefRestorePipeline, **options: Any) -> Tensor:
    return pipeline(list(FACES), output_type="pt", generator=torch.Generator().manual_seed(0), **options).images


def components(pipeline: PrefRestorePipeline) -> dict[str, nn.Module]:
    return {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}


class Watch:
    """Where each module was last sent, and what was on the device whenever a layer of a component worked."""

    def __init__(self) -> None:
        self.there: set[nn.Module] = set()
        self.parts: dict[str, nn.Module] = {}
        self.seen: list[tuple[str, frozenset[str]]] = []

    def of(self, pipeline: PrefRestorePipeline) -> None:
        self.parts = components(pipeline)
        for name, part in self.parts.items():
            for layer in part.modules():
                if not list(layer.children()) and list(layer.parameters(recurse=False)):
                    layer.register_forward_pre_hook(lambda module, _, name=name: self.work(name, module))

    def work(self, name: str, layer: nn.Module) -> None:
        assert layer in self.there, f"a {type(layer).__name__} of {name} works, but its weights are not on the device"
        row = (name, self.on_device())
        if not self.seen or self.seen[-1] != row:
            self.seen.append(row)

    def on_device(self) -> frozenset[str]:
        """Components with all their weights there."""
        return frozenset(
            name for name, part in self.parts.items() if all(m in self.there for m in part.modules() if m._parameters)
        )


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    watch, to = Watch(), nn.Module.to

    def sent(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        place = kwargs.get("device", args[0] if args else None)
        if isinstance(place, (str, torch.device)):
            change = watch.there.update if torch.device(place) == DEVICE else watch.there.difference_update
            change(module.modules())
        return to(module, *args, **kwargs)

    class Offload(CpuOffload):
        """As accelerate's, without its look at where the weights are: here they are always in one place."""

        def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            if self.prev_module_hook is not None:
                self.prev_module_hook.offload()
            module.to(self.execution_device)
            return args, kwargs

    monkeypatch.setattr(nn.Module, "to", sent)
    monkeypatch.setattr("accelerate.big_modeling.CpuOffload", Offload)
    yield watch


@pytest.mark.parametrize("published", [False, True])
def test_each_component_works_alone_on_the_device(watch: Watch, published: bool) -> None:
    plain = restored(pipeline_of(published))
    pipeline = pipeline_of(published)
    pipeline.enable_model_cpu_offload(device="cpu")
    watch.of(pipeline)
    assert not watch.on_device()
    assert torch.equal(restored(pipeline), plain)
    order = ["image_tokenizer", "language_model", "autoencoder", *([] if published else ["lq_encoder"])]
    embedding = len(order)
    order += ["transformer", "connectors", "transformer", "autoencoder"]
    assert [name for name, _ in watch.seen] == order
    # The denoiser's patch embedding, which comes without the rest, sees the LQ latents before the connectors do.
    expected = [frozenset() if i == embedding else {name} for i, name in enumerate(order)]
    assert [held for _, held in watch.seen] == expected
    assert not watch.on_device()


def test_the_methods_called_outside_a_call_bring_their_components_too(watch: Watch) -> None:
    pipeline = pipeline_of(False)
    pipeline.enable_model_cpu_offload(device="cpu")
    watch.of(pipeline)
    images = pipeline.prepare(list(FACES))
    noise = torch.zeros(2, *pipeline.encode_texture(images).shape[1:])
    for _ in range(2):
        conditions = pipeline.conditions(images)
        latents = pipeline.sample(conditions, noise)
        pipeline.decode(latents)
        assert not watch.on_device()
    assert pipeline.autoencoder.decode(pipeline.autoencoder.encode(images).latent).sample.shape == images.shape
    assert all(held <= {name} for name, held in watch.seen)


def test_the_watch_sees_a_component_that_does_not_come(watch: Watch) -> None:
    pipeline = pipeline_of(False)
    pipeline.enable_model_cpu_offload(device="cpu")
    watch.of(pipeline)
    with pytest.raises(AssertionError, match="language_model"):
        pipeline.language_model.model(torch.zeros(1, 1, dtype=torch.long))


@pytest.mark.parametrize("published", [False, True])
def test_layer_by_layer_from_the_meta_device(monkeypatch: pytest.MonkeyPatch, published: bool) -> None:
    # diffusers turns cpu into cpu:0, for which torch's conversion of a parameter gives a bare tensor.
    real = accelerate.cpu_offload
    monkeypatch.setattr(accelerate, "cpu_offload", lambda model, device, **k: real(model, torch.device("cpu"), **k))
    plain = restored(pipeline_of(published))
    pipeline = pipeline_of(published)
    pipeline.enable_sequential_cpu_offload(device="cpu")
    for part in components(pipeline).values():
        assert compute_device(part) == torch.device("cpu")
        assert all(parameter.is_meta for parameter in part.parameters())
    assert torch.equal(restored(pipeline), plain)
    parts = components(pipeline)
    assert not [key for part in parts.values() for key, parameter in part.named_parameters() if not parameter.is_meta]


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offloading_without_an_accelerator_is_refused(offload: str) -> None:
    with pytest.raises(InvalidInputError, match=f"--offload {offload} needs an accelerator"):
        place(pipeline_of(False), "cpu", offload=offload)


def test_tiles_are_refused_where_there_are_none_to_make() -> None:
    with pytest.raises(InvalidInputError, match="a ResidualAutoencoder takes a face of 64 px whole"):
        place(pipeline_of(False), "cpu", tile=True)


def test_tiles_join_without_a_seam_where_nothing_looks_further_than_a_tile() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        autoencoder = AutoencoderDC(
            latent_channels=4,
            encoder_block_out_channels=(4, 4, 8),
            decoder_block_out_channels=(4, 4, 8),
            encoder_block_types="ResBlock",
            decoder_block_types="ResBlock",
            encoder_layers_per_block=(1, 1, 1),
            decoder_layers_per_block=(1, 1, 1),
            encoder_qkv_multiscales=((), (), ()),
            decoder_qkv_multiscales=((), (), ()),
        ).eval()
    pipeline = pipeline_of(True)
    pipeline.register_modules(autoencoder=autoencoder)
    latents = torch.randn(2, 4, 128, 128, generator=torch.Generator().manual_seed(0))
    whole = pipeline.decode(latents)
    assert place(pipeline, "cpu", tile=True) is pipeline
    assert autoencoder.use_slicing and autoencoder.use_tiling
    tiled = pipeline.decode(latents)
    assert tiled.shape == whole.shape == (2, 3, 512, 512)
    # Convolutions reach 24 px here: beyond that from a tile's border nothing differs; in the overlap two tiles blend.
    inner = (slice(None), slice(None), slice(0, STRIDE - 24), slice(0, STRIDE - 24))
    assert torch.allclose(tiled[inner], whole[inner], atol=1e-5)
    assert not torch.equal(tiled, whole)
