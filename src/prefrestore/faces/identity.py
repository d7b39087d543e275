"""Who a face shows, as a unit vector: SFace, run by OpenCV.

OpenCV 5's own FaceRecognizerSF fails on this file (it sets the input without a name), so the network is run
directly.
"""

import threading

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefrestore.faces import onnx
from prefrestore.faces.align import crop_face, estimate_similarity, ffhq_template

# The five points in SFace's 112 x 112 input: the template published with ArcFace (Deng et al., CVPR 2019).
ARCFACE_TEMPLATE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


class IdentityEmbedder:
    """SFace; holds the network, so make one and use it for every face."""

    def __init__(self) -> None:
        # The network keeps its input inside, so photos that are restored side by side take turns.
        self._lock = threading.Lock()
        self._network = cv2.dnn.readNetFromONNX(str(onnx.model_path(onnx.SFACE)))

    def embed(self, rgb: NDArray[np.uint8], points: ArrayLike | None = None) -> NDArray[np.float32]:
        """The 128-number unit vector of one face.

        ``rgb``: H x W x 3 uint8, any picture that holds the face. ``points``: the face's own five points in
        it (5 x 2); without them the picture is taken for an FFHQ-aligned square. Compare two vectors with
        ``cosine``.
        """
        source = ffhq_template(rgb.shape[0]) if points is None else np.asarray(points, dtype=np.float64)
        crop = crop_face(rgb, estimate_similarity(source, ARCFACE_TEMPLATE_112), 112)
        blob = np.ascontiguousarray(crop.astype(np.float32).transpose(2, 0, 1)[None])
        # OpenCV 4 and 5 both take the input by its name; 5 refuses it without.
        with self._lock:
            self._network.setInput(blob, "data")
            vector = self._network.forward().reshape(128).astype(np.float64)
        return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Similarity of two identities, -1..1; 1 is the same vector."""
    return float(np.clip(np.dot(a.astype(np.float64), b.astype(np.float64)), -1, 1))
