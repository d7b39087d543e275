"""Writes the face generator as safetensors: `python tools/bundle/generator.py -o generator.safetensors --half`.

It reads the OpenVINO files of the package random_face 2021.7.21.1, whose hashes are known, as XML and bytes, so
openvino is not needed: the constants of each network in order, under the names of
`prefrestore.models.generator.MobileStyleGAN`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from safetensors.torch import save_file

from prefrestore.data.synthesize import MEAN_DRAWS, PACKAGE, SHA256, VERSION, find_weights
from prefrestore.errors import PrefRestoreError, WeightsError
from prefrestore.files.atomic import written_beside
from prefrestore.files.fingerprints import file_hash
from prefrestore.models.generator import LATENT, MAPPING_LAYERS, WIDTHS, MobileStyleGAN


def constants(folder: Path, network: str) -> dict[str, np.ndarray]:
    """Name -> the float constants of ``network`` that are weights, in the order of the file.

    Left out are single numbers (slopes, gains, which the module computes) and the fixed filters of the wavelets.
    """
    data = (folder / f"{network}.bin").read_bytes()
    found = {}
    for layer in ElementTree.parse(folder / f"{network}.xml").getroot().iterfind("layers/layer[@type='Const']"):
        about = layer.find("data")
        if about is None or about.get("element_type") != "f32":
            continue
        shape = [int(side) for side in (about.get("shape") or "").split(",") if side.strip()]
        if np.prod(shape) == 1 or (len(shape) == 5 and min(shape[3:]) == 1):
            continue
        values = np.frombuffer(data, np.float32, int(np.prod(shape)), int(about.get("offset", 0)))
        found[str(layer.get("name"))] = values.reshape(shape)
    return found


def _target_names() -> Iterator[str]:
    """Names of the convolutions' weights, in the order in which the picture passes through them."""
    yield from ("constant", "start.mixing.weight", "start.noise", "start.bias")
    for level in range(len(WIDTHS)):
        for part in ("first", "second"):
            for name in ("depthwise.weight", "mixing.weight", "noise", "bias"):
                yield f"levels.{level}.{part}.{name}"
    yield from ("to_picture.mixing.weight", "to_picture.mixing.bias")


def _module_name(name: str) -> str:
    """``m.layers.3.conv1.conv.modulation.weight`` -> ``levels.3.first.modulation.weight``."""
    for old, new in (("m.layers", "levels"), ("m.conv1", "start"), ("to_img", "to_picture"), (".up.", ".")):
        name = name.replace(old, new)
    name = name.replace("conv1", "first").replace("conv2", "second").replace(".conv.", ".")
    return name.replace("levels.6.to_picture", "to_picture")


def converted(folder: Path) -> MobileStyleGAN:
    """The module with the weights of the OpenVINO files in ``folder``.

    Raises:
        WeightsError: they are not those of this network.
    """
    mapping = list(constants(folder, "MappingNetwork").values())
    synthesis = constants(folder, "SynthesisNetwork")
    state = {f"mapping.layers.{k // 2}.{('weight', 'bias')[k % 2]}": value for k, value in enumerate(mapping)}
    state |= {_module_name(name): value for name, value in synthesis.items() if "modulation" in name}
    rest = [value for name, value in synthesis.items() if "modulation" not in name]
    names = list(_target_names())
    if len(mapping) != 2 * MAPPING_LAYERS or len(rest) != len(names):
        raise WeightsError(f"{folder} holds another network: {len(mapping)} and {len(rest)} constants")
    state |= dict(zip(names, rest, strict=True))
    module = MobileStyleGAN()
    own = module.state_dict()
    for name, value in state.items():
        if name not in own or own[name].numel() != value.size:
            raise WeightsError(f"{folder} holds another network: {name} of shape {value.shape} has no place")
        own[name] = torch.from_numpy(value.copy()).view_as(own[name])
    module.load_state_dict(own)
    # The mean of the same draws as in prefrestore.data.synthesize: the mean belongs to the network, not to a run.
    draws = np.random.default_rng(20210721).standard_normal((MEAN_DRAWS, LATENT), dtype=np.float32)
    module.mean_style.copy_(module.mapping(torch.from_numpy(draws)).mean(0, keepdim=True))
    return module


def write(target: Path, *, half: bool) -> Path:
    """Convert the installed package's generator into ``target``.

    Raises:
        MissingDependencyError: the package is absent. WeightsError: its files are not the known ones.
    """
    module = converted(find_weights())
    if half:
        module.half()
    about = {"source": f"{PACKAGE} {VERSION}", **{f"sha256 of {name}": value for name, value in SHA256.items()}}
    with written_beside(target) as part:
        save_file({name: value.contiguous() for name, value in module.state_dict().items()}, part, about)
    return target


def main(arguments: list[str] | None = None) -> int:
    """Write the file and say its size and hash; 1 after a failure."""
    parser = argparse.ArgumentParser(description="Write the face generator as safetensors.")
    parser.add_argument("-o", "--output", type=Path, default=Path("generator.safetensors"))
    parser.add_argument("--half", action="store_true", help="in half precision, 20 MB instead of 40")
    parser.add_argument("--compare", action="store_true", help="draw a face with the file, and with full precision")
    options = parser.parse_args(arguments)
    try:
        path = write(options.output, half=options.half)
        if options.compare:
            both = (MobileStyleGAN(path), converted(find_weights()))
            faces = [network.draw(1, generator=torch.Generator().manual_seed(0)) for network in both]
            off = (faces[0] - faces[1]).abs()
            sys.stdout.write(f"off by {off.mean():.5f} of [-1,1] on average, {off.max():.4f} at most\n")
    except (PrefRestoreError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{path.stat().st_size / 2**20:.1f} MiB  sha256 {file_hash(path)}  {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
