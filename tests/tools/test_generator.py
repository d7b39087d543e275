"""The converted face generator against the original, where that is installed."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from prefrestore.data.synthesize import FaceGenerator, find_weights
from prefrestore.errors import MissingDependencyError, WeightsError
from prefrestore.models.generator import MobileStyleGAN


@pytest.fixture(scope="module")
def converter(bundle_tools: Path) -> ModuleType:
    return import_module("generator")


@pytest.fixture(scope="module")
def module(converter: ModuleType) -> MobileStyleGAN:
    pytest.importorskip("openvino")
    try:
        return converter.converted(find_weights())
    except MissingDependencyError as missing:
        pytest.skip(str(missing))


def test_the_module_draws_what_the_original_draws(module: MobileStyleGAN) -> None:
    original = FaceGenerator(threads=1)
    assert np.abs(original.mean_style - module.mean_style.numpy()).max() < 1e-4
    latents = np.random.default_rng(3).standard_normal((1, 512), dtype=np.float32)
    style = np.asarray(original._mapping(latents)[0])
    assert np.abs(style - module.mapping(torch.from_numpy(latents)).numpy()).max() < 1e-3
    picture = np.asarray(original._synthesis(style)[0])
    with torch.no_grad():
        ours = module.synthesize(torch.from_numpy(style)).numpy()
    assert ours.shape == picture.shape == (1, 3, 1024, 1024)
    assert np.abs(ours - picture).max() < 1e-3


def test_half_precision_comes_back_as_weights(
    converter: ModuleType, module: MobileStyleGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converter, "converted", lambda folder: module)
    path = converter.write(tmp_path / "generator.safetensors", half=True)
    module.float()
    read = MobileStyleGAN(path)
    assert path.stat().st_size < 21e6
    for name, value in read.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.allclose(value, module.state_dict()[name], rtol=1e-3, atol=1e-6)


def test_another_network_is_refused(converter: ModuleType, tmp_path: Path) -> None:
    constant = "<layer name='a' type='Const'><data element_type='f32' shape='2' offset='0'/></layer>"
    network = f"<net><layers>{constant}</layers></net>"
    for name in ("MappingNetwork", "SynthesisNetwork"):
        (tmp_path / f"{name}.xml").write_text(network)
        (tmp_path / f"{name}.bin").write_bytes(bytes(8))
    with pytest.raises(WeightsError):
        converter.converted(tmp_path)
