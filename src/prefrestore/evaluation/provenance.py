"""By what a value was measured: versions, and the hash of every network's file."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from prefrestore.files.fingerprints import file_hash

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "numpy", "opencv-python-headless", "pillow", "dlib-bin")


def versions() -> dict[str, str]:
    """Of this package, Python, and the libraries that values depend on; absent ones are left out."""
    from prefrestore import __version__

    found = {"prefrestore": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def metric_weights(available: Sequence[str], inception: Path | None = None) -> dict[str, dict[str, str]]:
    """By metric: the network and the sha256 of its file, for NIQE and what is available (`Evaluator.available`)."""
    from prefrestore.faces.onnx import SFACE, SHA256, YUNET
    from prefrestore.files.cache import cached_file
    from prefrestore.metrics import dists
    from prefrestore.metrics.landmarks import shapes_path
    from prefrestore.metrics.likeness import recogniser_path
    from prefrestore.metrics.lpips import weight_file
    from prefrestore.metrics.musiq import WEIGHT_FILE
    from prefrestore.metrics.niqe import MODEL_FILES

    found = {}
    for size, name in MODEL_FILES.items():
        file = Path(str(resources.files("prefrestore.metrics") / name))
        network = f"Gaussian of 36 features, own fit at {size} px"
        found[f"niqe at {size} px"] = {"network": network, "sha256": file_hash(file)}
    for net, name in (("alex", "AlexNet"), ("vgg", "VGG16")):
        if f"lpips_{net}" in available:
            found[f"lpips_{net}"] = {
                "network": f"LPIPS 0.1, {name}",
                "sha256": file_hash(cached_file(weight_file(net))),
            }
    if "dists" in available:
        own = {"network": f"DISTS ({dists.WEIGHT_FILE}), VGG16 of LPIPS vgg"}
        found["dists"] = own | {"sha256": file_hash(cached_file(dists.WEIGHT_FILE))}
    if "identity" in available:
        found["identity"] = {"network": f"SFace ({SFACE})", "sha256": SHA256[SFACE]}
        found["identity, alignment"] = {"network": f"YuNet ({YUNET})", "sha256": SHA256[YUNET]}
    if "dlib" in available:
        found["dlib"] = {"network": "dlib, face recognition ResNet", "sha256": file_hash(recogniser_path())}
    if "landmarks" in available:
        found["landmarks"] = {"network": "dlib, 68 points", "sha256": file_hash(shapes_path())}
    if "musiq" in available:
        found["musiq"] = {"network": f"MUSIQ ({WEIGHT_FILE})", "sha256": file_hash(cached_file(WEIGHT_FILE))}
    if inception is not None:
        found["fid, kid"] = {"network": "Inception v3 (2015-12-05)", "sha256": file_hash(inception)}
    return found


def pipeline_weights(pipeline: Any) -> dict[str, Any]:
    """The preset and the sha256 of the pipeline's files; a pipeline of random weights has none."""
    return {"preset": pipeline.config.preset, "sha256": dict(pipeline.weight_hashes)}
