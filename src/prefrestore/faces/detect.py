"""Find every face of a picture with YuNet: at several sizes, in tiles, with a check of the five points.

YuNet sees faces of some 10 to 300 px. Small pictures are therefore also searched enlarged, large ones also
shrunk, and every pass is cut into overlapping tiles so that memory does not grow with the picture.
"""

import threading
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from prefrestore.errors import InvalidInputError
from prefrestore.faces import onnx
from prefrestore.pictures.opencv import quiet_opencv

TILE = 1280  # px; the network's memory for one tile is about 100 MB
OVERLAP = 160  # px; a face smaller than this lies whole in one tile, a larger one is found in a coarser pass
LARGEST = 24_000_000  # px; a larger picture is shrunk to this before the finest pass
ENLARGE_BELOW = 2_500_000  # px; a smaller picture is also searched at twice its size
PROBED = 4_000_000  # px; the finest pass over a picture that may lie on its side
COARSEST = 240  # px; passes are added, each half the last, until the longer side is this small
SMALLEST_IN_COARSE = 48  # px in a shrunken pass; what is smaller was seen at twice this size already
LARGEST_IN_FINE = 240  # px in a pass that has a coarser one, which sees a large face better
LARGEST_IN_ENLARGED = 96  # px in the enlarged pass; it is there for faces below 48 px
FLAT = 100  # levels of 255 from the 1st to the 99th percentile: a picture with fewer is stretched before it is searched
# Faces that stand upright score 0.9 and more unless they are tiny, hidden or badly degraded; a face on its
# side 0.85.
PLAIN = 0.88
BESIDE_PLAIN = 0.7
# What a turned picture's best score must have over the upright one's, and over a fixed 0.8 when there is
# none.
TURN_GAIN = 0.03


@dataclass(frozen=True)
class Face:
    """A detected face, in pixels of the picture."""

    box: tuple[float, float, float, float]
    """x, y, width, height."""
    points: NDArray[np.float64]
    """5 x 2: left eye, right eye, nose tip, left and right mouth corner; left is the left of the (upright)
    face.
    """
    score: float
    """0..1; the best of all passes that saw the face."""


class FaceDetector:
    """YuNet in passes; holds the network, so make one and use it for every photo.

    ``threshold``: least score of a face, in a picture without plain ones. Measured: four group photos with
    204 faces of 20 px and more show every one, with 0.78 and more, and no false one; badly degraded faces
    ("severe" of the bench) score 0.64 and more in 95 % of the cases. ``nms``: overlap (intersection over
    union) above which two boxes are one face.
    """

    def __init__(self, *, threshold: float = 0.6, nms: float = 0.4) -> None:
        if not (0 < threshold < 1 and 0 < nms < 1):
            raise InvalidInputError(f"threshold and nms lie between 0 and 1, got {threshold} and {nms}")
        self.threshold = threshold
        self.nms = nms
        # The network keeps its input inside, so photos that are restored side by side take turns.
        self._lock = threading.Lock()
        with quiet_opencv():
            path = str(onnx.model_path(onnx.YUNET))
            self._network = cv2.FaceDetectorYN.create(path, "", (320, 320), threshold, 0.3, 5000)

    def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
        """Faces of an H x W x 3 (RGB) or H x W uint8 picture, from left to right by the middle of their
        boxes.

        Scans often lie on their side, where YuNet still sees most faces but sets their points wrongly. So if
        no face of the upright picture is plain, the picture is also searched turned by 90, 270 and 180
        degrees, and the turn that shows the plainest face counts; the points then say how the face stands.
        """
        if rgb.dtype != np.uint8 or rgb.ndim not in (2, 3) or (rgb.ndim == 3 and rgb.shape[2] != 3) or 0 in rgb.shape:
            raise InvalidInputError(f"detection needs an H x W x 3 uint8 picture, got {rgb.dtype} {rgb.shape}")
        bgr = cv2.cvtColor(rgb, cv2.COLOR_GRAY2BGR if rgb.ndim == 2 else cv2.COLOR_RGB2BGR)
        bgr = _stretched(bgr)
        best = self._search(bgr, blurred=True)
        plainest = _plainest(best)
        if plainest < PLAIN:
            for quarters in (1, 3, 2):
                turned = np.ascontiguousarray(np.rot90(bgr, quarters))
                # A turn is a guess, not worth the dear passes until it proves right.
                found = _plainest(self._search(turned, most=PROBED))
                if found > plainest + TURN_GAIN:
                    best = _turn_back(self._search(turned), quarters, bgr.shape[1], bgr.shape[0])
                    plainest = found
        # Beside plain faces a doubtful one is mostly a flower or a fist; where all is blurred it may be all
        # there is.
        if plainest >= PLAIN:
            best = best[best[:, 14] >= BESIDE_PLAIN]
        faces = [Face(tuple(row[:4].tolist()), row[4:14].reshape(5, 2), float(row[14])) for row in best]
        return sorted(faces, key=lambda face: (face.box[0] + face.box[2] / 2, face.box[1]))

    def _search(self, bgr: NDArray[np.uint8], *, most: float = np.inf, blurred: bool = False) -> NDArray[np.float64]:
        """All passes of up to ``most`` pixels: rows of x, y, w, h, 10 point coordinates, score.

        blurred: one more pass, half the last, counts where no other shows a plain face: blur that hides a face is gone
        at a smaller size. (Animals that lie on their side look like faces there.)
        """
        found = [np.zeros((0, 15))]
        scales = pass_scales(bgr.shape[1], bgr.shape[0])
        finest = max(scale for scale in scales if scale <= 1)
        for scale in (*scales, scales[-1] / 2):
            if bgr.shape[0] * bgr.shape[1] * scale**2 > most:
                continue
            size = (max(1, round(bgr.shape[1] * scale)), max(1, round(bgr.shape[0] * scale)))
            kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            level = bgr if scale == 1 else cv2.resize(bgr, size, interpolation=kind)
            ratio = np.array([bgr.shape[1] / level.shape[1], bgr.shape[0] / level.shape[0]])
            rows = self._tiles(level)
            # A pass must not report what a finer or coarser one sees better: shrunken crowds look like larger
            # faces.
            rows = rows[rows[:, 2] >= SMALLEST_IN_COARSE] if scale < finest else rows
            rows = rows[rows[:, 2] <= LARGEST_IN_ENLARGED] if scale > 1 else rows
            rows = rows[rows[:, 2] <= LARGEST_IN_FINE] if scale > scales[-1] else rows
            rows[:, 2:4] *= ratio
            rows[:, :2] = (rows[:, :2] + 0.5) * ratio - 0.5
            rows[:, 4:14] = (rows[:, 4:14] + 0.5) * np.tile(ratio, 5) - 0.5
            found.append(rows)
        usual = merge(np.concatenate(found[:-1]), self.nms)
        return merge(np.concatenate(found), self.nms) if blurred and _plainest(usual) < PLAIN else usual

    def _tiles(self, bgr: NDArray[np.uint8]) -> NDArray[np.float64]:
        """One pass in tiles, without detections that a tile's inner border cuts."""
        found = [np.zeros((0, 15))]
        height, width = bgr.shape[:2]
        for y0, y1 in _spans(height):
            for x0, x1 in _spans(width):
                rows = self._network_rows(np.ascontiguousarray(bgr[y0:y1, x0:x1]))
                rows[:, :14] += np.tile([x0, y0], 7) * np.array([1, 1, 0, 0] + [1] * 10)
                # A face that an inner border cuts is framed wrongly, well inside the border: the neighbour
                # has it whole.
                near_x, near_y = 0.2 * rows[:, 2], 0.2 * rows[:, 3]
                right, bottom = rows[:, 0] + rows[:, 2], rows[:, 1] + rows[:, 3]
                cut = (rows[:, 0] < x0 + near_x) & (x0 > 0) | (rows[:, 1] < y0 + near_y) & (y0 > 0)
                cut |= (right > x1 - near_x) & (x1 < width) | (bottom > y1 - near_y) & (y1 < height)
                found.append(rows[~cut])
        return np.concatenate(found)

    def _network_rows(self, tile: NDArray[np.uint8]) -> NDArray[np.float64]:
        height, width = tile.shape[:2]
        # The network halves its input five times; a picture below one such cell has no place for a face.
        if min(height, width) < 8:
            return np.zeros((0, 15))
        with self._lock, quiet_opencv():
            self._network.setInputSize((width, height))
            rows = self._network.detect(tile)[1]
        if rows is None:
            return np.zeros((0, 15))
        rows = rows.astype(np.float64)
        return rows[[plausible(row[4:14].reshape(5, 2), row[:4]) for row in rows]]


def pass_scales(width: int, height: int) -> list[float]:
    """The sizes, relative to the picture, at which it is searched, finest first."""
    area = width * height
    finest = min(1.0, float(np.sqrt(LARGEST / area)))
    scales = [2.0] if area <= ENLARGE_BELOW else []
    scales.append(finest)
    while max(width, height) * scales[-1] > 2 * COARSEST:
        scales.append(scales[-1] / 2)
    return scales


def plausible(points: NDArray[np.float64], box: NDArray[np.float64]) -> bool:
    """Whether five points can be a face's: eyes above mouth, nose between them, all in or near the box.

    "Above" is meant along the face's own axis, so a tilted head passes. Profiles pass: a nose may stick out.
    """
    x, y, width, height = box
    low, high = (
        np.array([x - 0.25 * width, y - 0.25 * height]),
        np.array([x + 1.25 * width, y + 1.25 * height]),
    )
    if not ((points > low) & (points < high)).all() or not 0.4 < width / max(height, 1e-9) < 1.6:
        return False
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    down = mouth - eyes
    length = float(np.hypot(*down))
    if length < 0.15 * height:
        return False
    down /= length
    right = np.array([down[1], -down[0]])
    across_eyes, across_mouth = (points[1] - points[0]) @ right, (points[4] - points[3]) @ right
    nose_down = (points[2] - eyes) @ down / length
    return bool(across_eyes > -0.05 * width and across_mouth > -0.05 * width and 0.05 < nose_down < 1.05)


def merge(rows: NDArray[np.float64], overlap: float) -> NDArray[np.float64]:
    """Greedy non-maximum suppression over all passes; also drops a box whose eyes and mouth another one
    holds.

    Two passes may frame one face so differently that their boxes overlap little, but their points then agree.
    """
    kept: list[NDArray[np.float64]] = []
    for row in rows[np.argsort(-rows[:, 14], kind="stable")]:
        if not any(_overlap(row, other) > overlap or _same_points(row, other) for other in kept):
            kept.append(row)
    return np.array(kept).reshape(-1, 15)


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[:2] + a[2:4], b[:2] + b[2:4])
    common = float(np.prod(np.maximum(high - low, 0)))
    # A box mostly inside another one is a second framing of the same face (a beard taken for a face, say).
    inside = common / max(float(min(a[2] * a[3], b[2] * b[3])), 1e-9)
    return max(common / max(float(a[2] * a[3] + b[2] * b[3] - common), 1e-9), 1.0 if inside > 0.65 else 0.0)


def _same_points(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    distance = np.linalg.norm(a[4:14].reshape(5, 2) - b[4:14].reshape(5, 2), axis=1).mean()
    return bool(distance < 0.25 * min(a[2], b[2]))


def _stretched(bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A faded or dark picture at full contrast; any other as it is."""
    low, high = np.percentile(bgr[:: max(1, bgr.shape[0] // 500), :: max(1, bgr.shape[1] // 500)], [1, 99])
    if high - low >= FLAT:
        return bgr
    # Of a picture that is nearly one colour the steps of 8 bits are not made edges.
    gain = min(255 / max(high - low, 1), 16)
    # By a table: a large scan as floats would take gigabytes.
    return np.asarray(cv2.LUT(bgr, np.clip((np.arange(256) - low) * gain, 0, 255).astype(np.uint8)), np.uint8)


def _plainest(rows: NDArray[np.float64]) -> float:
    """The best score; for nothing at all 0.77, so that a turned picture convinces from 0.8 on."""
    return float(rows[:, 14].max()) if len(rows) else 0.8 - TURN_GAIN


def _spans(length: int) -> list[tuple[int, int]]:
    """Overlapping intervals that cover ``length``: all of one size, at most TILE px, because the network is
    planned anew for each size.
    """
    if length <= TILE:
        return [(0, length)]
    count = -(-(length - OVERLAP) // (TILE - OVERLAP))
    size = -(-(length - OVERLAP) // count) + OVERLAP
    starts = np.linspace(0, length - size, count).round().astype(int).tolist()
    return [(start, start + size) for start in starts]


def _turn_back(rows: NDArray[np.float64], quarters: int, width: int, height: int) -> NDArray[np.float64]:
    """Rows found in the picture turned by ``quarters`` (anticlockwise), in the unturned picture's pixels."""
    if quarters == 0:
        return rows
    corners = np.stack([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
    both = np.concatenate([corners, rows[:, 4:14].reshape(-1, 5, 2)], axis=1)
    x, y = both[..., 0], both[..., 1]
    turned = {1: (width - 1 - y, x), 2: (width - 1 - x, height - 1 - y), 3: (y, height - 1 - x)}[quarters]
    both = np.stack(turned, axis=-1)
    low, high = both[:, :2].min(1), both[:, :2].max(1)
    return np.concatenate([low, high - low, both[:, 2:].reshape(-1, 10), rows[:, 14:]], axis=1)
