"""The preference adapter as a PEFT folder: written, read back, switched, and refused when it does not fit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.models.adapter import (
    INPUT,
    adapter_tensors,
    add_adapter,
    load_adapter,
    noise_rows,
    save_adapter,
    set_noise_gain,
    using_adapter,
)
from prefrestore.models.texture.conditioning import embed_latents
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.pipeline.pipeline import PrefRestorePipeline


@pytest.fixture
def pipeline() -> PrefRestorePipeline:
    return load_preset_pipeline("tiny")


def _answer(pipeline: PrefRestorePipeline) -> torch.Tensor:
    face = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    return pipeline(face, generator=torch.Generator().manual_seed(0), output_type="latent").images


def _written(pipeline: PrefRestorePipeline, folder: Path) -> None:
    """An adapter that changes something, written to a folder; the pipeline keeps it active."""
    add_adapter(pipeline.transformer, "default", rank=2, alpha=4)
    with torch.no_grad():
        for value in adapter_tensors(pipeline.transformer, "default").values():
            value.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    save_adapter(pipeline.transformer, "default", folder, torch.float32)


def test_a_new_adapter_changes_nothing_until_it_is_trained(pipeline: PrefRestorePipeline) -> None:
    torch.nn.init.normal_(pipeline.transformer.proj_out.weight, generator=torch.Generator().manual_seed(0))
    before = _answer(pipeline)
    state = torch.random.get_rng_state()
    add_adapter(pipeline.transformer, "default", rank=2, alpha=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.allclose(_answer(pipeline), before, atol=1e-6)
    tensors = adapter_tensors(pipeline.transformer, "default")
    layers = len(pipeline.transformer.transformer_blocks)
    assert len(tensors) == layers * 8 * 2 and all(value.requires_grad for value in tensors.values())


def test_there_and_back_and_off(pipeline: PrefRestorePipeline, tmp_path: Path) -> None:
    torch.nn.init.normal_(pipeline.transformer.proj_out.weight, generator=torch.Generator().manual_seed(0))
    base = _answer(pipeline)
    _written(pipeline, tmp_path)
    changed = _answer(pipeline)
    assert not torch.allclose(changed, base, atol=1e-4)
    with using_adapter(pipeline.transformer, None):
        assert torch.allclose(_answer(pipeline), base, atol=1e-6)
    assert torch.equal(_answer(pipeline), changed)

    again = load_preset_pipeline("tiny")
    again.transformer.proj_out.load_state_dict(pipeline.transformer.proj_out.state_dict())
    load_adapter(again.transformer, tmp_path)
    assert torch.allclose(_answer(again), changed, atol=1e-6)
    assert not any(value.requires_grad for value in again.transformer.parameters())
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LORA"
    keys = load_file(tmp_path / "adapter_model.safetensors")
    assert all(key.startswith("base_model.model.transformer_blocks.") for key in keys)


def test_on_the_input_it_changes_the_flow_and_not_the_conditions(pipeline: PrefRestorePipeline, tmp_path: Path) -> None:
    """LQ tokens come from the patch embedding, too: under an adapter they stay the base's."""
    transformer = pipeline.transformer
    torch.nn.init.normal_(transformer.proj_out.weight, generator=torch.Generator().manual_seed(0))
    latents = torch.linspace(-1, 1, transformer.config.out_channels * 64).reshape(1, -1, 8, 8)
    answer, tokens = _answer(pipeline), embed_latents(transformer, latents)
    add_adapter(transformer, "default", rank=2, alpha=4, targets="attention+input")
    for key, value in adapter_tensors(transformer, "default").items():
        if "patch_embed" in key:
            torch.nn.init.normal_(value, generator=torch.Generator().manual_seed(1))
    assert torch.equal(embed_latents(transformer, latents), tokens)
    assert all(value.requires_grad for value in adapter_tensors(transformer, "default").values())
    changed = _answer(pipeline)
    assert not torch.allclose(changed, answer, atol=1e-4)

    save_adapter(transformer, "default", tmp_path, torch.float32)
    again = load_preset_pipeline("tiny")
    again.transformer.proj_out.load_state_dict(transformer.proj_out.state_dict())
    load_adapter(again.transformer, tmp_path)
    assert torch.allclose(_answer(again), changed, atol=1e-6)
    assert not any(value.requires_grad for value in again.transformer.parameters())


def test_a_noise_gain_is_a_shorter_way_from_the_lq_latents() -> None:
    """By hand: the first layer with the adapter on (x, z) is the base's on (z + g (x - z), z)."""
    transformer = load_preset_pipeline("tiny", preference=False).transformer
    channels = transformer.config.out_channels
    assert transformer.config.in_channels == 2 * channels, "this test is of a denoiser that is given the LQ latents"
    x, z = torch.randn(2, 1, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = transformer.patch_embed(torch.cat([z + 0.25 * (x - z), z], dim=1))
    add_adapter(transformer, "default", rank=2, alpha=4, targets="input", noise_gain=0.25)
    assert torch.allclose(transformer.patch_embed(torch.cat([x, z], dim=1)), expected, atol=1e-5)
    torch.nn.init.normal_(transformer.get_submodule(INPUT).lora_A["default"].weight)
    set_noise_gain(transformer, "default", 1.0)
    unchanged = transformer.patch_embed(torch.cat([x, z], dim=1))
    with using_adapter(transformer, None):
        assert torch.allclose(unchanged, transformer.patch_embed(torch.cat([x, z], dim=1)), atol=1e-5)
    rows = noise_rows(transformer).flatten(1)
    assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-6)


@pytest.mark.parametrize(("targets", "gain"), [("attention", 0.5), ("input", -0.1), ("input", float("nan"))])
def test_a_noise_gain_that_nothing_can_have(pipeline: PrefRestorePipeline, targets: str, gain: float) -> None:
    with pytest.raises(InvalidInputError, match="noise gain"):
        add_adapter(pipeline.transformer, "default", rank=2, alpha=4, targets=targets, noise_gain=gain)


@pytest.mark.parametrize("harm", ["no weights", "no config", "rank", "lost key", "other key", "broken"])
def test_what_does_not_fit_is_refused(pipeline: PrefRestorePipeline, tmp_path: Path, harm: str) -> None:
    _written(load_preset_pipeline("tiny"), tmp_path)
    weights, config = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    tensors = load_file(weights)
    first = sorted(tensors)[0]
    if harm == "no weights":
        weights.unlink()
    elif harm == "no config":
        config.unlink()
    elif harm == "rank":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 3}))
    elif harm == "lost key":
        save_file({key: value for key, value in tensors.items() if key != first}, weights)
    elif harm == "other key":
        save_file(tensors | {"base_model.model.nowhere.lora_A.weight": torch.zeros(2, 2)}, weights)
    else:
        weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(WeightsError, match=str(tmp_path)):
        load_adapter(pipeline.transformer, tmp_path)


def test_a_saved_pipeline_keeps_base_and_adapter_apart(pipeline: PrefRestorePipeline, tmp_path: Path) -> None:
    torch.nn.init.normal_(pipeline.transformer.proj_out.weight, generator=torch.Generator().manual_seed(0))
    base = _answer(pipeline)
    _written(pipeline, tmp_path / "adapter")
    changed = _answer(pipeline)
    pipeline.save_pretrained(tmp_path / "saved")
    assert torch.equal(_answer(pipeline), changed), "saving changed the pipeline"
    again = PrefRestorePipeline.from_pretrained(tmp_path / "saved")
    assert torch.allclose(_answer(again), changed, atol=1e-6)
    plain = PrefRestorePipeline.from_pretrained(tmp_path / "saved", preference=False)
    assert torch.allclose(_answer(plain), base, atol=1e-6)
