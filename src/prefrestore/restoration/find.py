"""The faces of a photo, each with its aligned crop and what the rules look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from prefrestore.errors import InvalidInputError
from prefrestore.faces import align, blend, damage, quality
from prefrestore.faces.detect import Face, FaceDetector
from prefrestore.faces.exposure import Exposure, exposure_of
from prefrestore.pictures.photo import Photo
from prefrestore.restoration.options import RestoreOptions
from prefrestore.restoration.rules import FaceFacts

# Below this sharpness a face is restored whatever its edges are.
BLURRED = 0.3


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundFace:
    """One face of a photo before anything is decided."""

    face: Face
    matrix: align.Floats
    """2 x 3: photo pixel to crop pixel."""
    crop: NDArray[Any]
    """S x S x 3 in the photo's own type: as floats all faces of a large group would take a gigabyte."""
    exposure: Exposure
    """How the crop is stretched for the model."""
    facts: FaceFacts
    smoothing: float = 0.0
    """Gaussian, px of the crop, that makes a mosaic's cells what the model knows: a picture that was once small."""

    @property
    def coded(self) -> blend.Float32:
        """The crop as coded values in 0..1."""
        return coded(self.crop)

    @property
    def shown(self) -> blend.Float32:
        """The crop as the model and every measure are shown it."""
        return _shown(self.coded, self.exposure, self.smoothing)

    @property
    def points(self) -> align.Floats:
        """The five points in the crop, 5 x 2 px."""
        return align.transform_points(self.matrix, self.face.points)


def find_faces(
    photo: Photo, rgb: NDArray[np.uint8], detector: FaceDetector, size: int, options: RestoreOptions
) -> list[FoundFace]:
    """All faces of a photo from left to right; the whole picture for ``options.aligned``.

    Args:
        rgb: the photo as 8-bit RGB.
        size: side of the crops, px.

    Raises:
        InvalidInputError: an aligned face that is not square.
    """
    width, height = photo.size
    if options.aligned:
        if width != height:
            name = photo.path or "the picture"
            raise InvalidInputError(f"{name}: an aligned face is square, this picture is {width} x {height} px")
        faces = [Face((0.0, 0.0, float(width), float(height)), align.ffhq_template(width), 1.0)]
        # Pixel centres of the whole picture onto those of the model's.
        ratio = size / width
        matrices = [np.array([[ratio, 0, ratio / 2 - 0.5], [0, ratio, ratio / 2 - 0.5]])]
    else:
        faces = detector.detect(rgb)
        template = align.ffhq_template(size)
        matrices = [align.estimate_similarity(face.points, template) for face in faces]
    return [_found(photo, rgb, face, matrix, size, options) for face, matrix in zip(faces, matrices, strict=True)]


def _found(
    photo: Photo, rgb: NDArray[np.uint8], face: Face, matrix: align.Floats, size: int, options: RestoreOptions
) -> FoundFace:
    width, height = photo.size
    crop = _crop(photo.pixels, matrix, size)
    x, y, box_width, box_height = face.box
    left, top = max(round(x), 0), max(round(y), 0)
    seen = rgb[top : max(round(y + box_height), top), left : max(round(x + box_width), left)]
    # The published procedure shows the model the face as it is.
    exposure, smoothing = Exposure(), 0.0
    if not options.reference:
        exposure = exposure_of(coded(crop))
        smoothing = damage.mosaic_cell(seen) / 2 * align.similarity_scale(matrix)
    measured = measured_crop(photo.pixels, matrix, size, exposure, smoothing)
    clarity, edges, natural = quality.face_quality(measured), 1.0, 1.0
    if clarity >= BLURRED:
        edges, natural = damage.own_edges(measured, seen), damage.naturalness(measured)
        clarity *= edges
    inside = ((face.points >= -0.5) & (face.points <= (width - 0.5, height - 0.5))).all(axis=1)
    facts = FaceFacts(
        width=face.box[2],
        yaw=quality.yaw_degrees(face.points),
        quality=clarity * natural * own_detail(photo.pixels, matrix, size),
        clarity=clarity,
        own_edges=edges,
        photo_per_model=1 / align.similarity_scale(matrix),
        own_pixels=size / align.similarity_scale(matrix),
        score=face.score,
        points_outside=int((~inside).sum()),
        share_outside=blend.share_outside(matrix, size, width, height),
        noise=_noise(measured, seen, size / align.similarity_scale(matrix), exposure),
        gain=exposure.gain,
    )
    return FoundFace(face=face, matrix=matrix, crop=crop, exposure=exposure, facts=facts, smoothing=smoothing)


def measured_crop(
    pixels: NDArray[Any], matrix: align.Floats, size: int, exposure: Exposure, smoothing: float
) -> NDArray[np.uint8]:
    """A face as every limit was measured: as its crop of ``size`` px is shown, but cut at `quality.MEASURED_AT` px if
    that is less. A crop that was enlarged beyond that and shrunk again has lost noise and detail on the way.

    Args:
        pixels: the photo, H x W (x 3), uint8 or uint16.
        matrix: 2 x 3, photo pixel to pixel of the crop of ``size``.
        smoothing: px of that crop.
    """
    factor = min(quality.MEASURED_AT / size, 1.0)
    crop = _crop(pixels, align.rescale_crop(matrix, factor), round(size * factor))
    return uint8(_shown(coded(crop), exposure, smoothing * factor))


def _noise(measured: NDArray[np.uint8], seen: NDArray[np.uint8], own_pixels: float, exposure: Exposure) -> float:
    """In levels of 255, stretched: of the photo's own pixels, which enlarging would smooth, or of a crop of fewer."""
    if own_pixels > quality.MEASURED_AT or min(seen.shape[:2]) < damage.SMALLEST:
        return quality.noise_of(measured)
    return quality.noise_level(cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY).astype(np.uint8)) * exposure.gain


def _crop(pixels: NDArray[Any], matrix: align.Floats, size: int) -> NDArray[Any]:
    crop = align.crop_face(pixels, matrix, size)
    return np.repeat(crop[..., None], 3, axis=2) if crop.ndim == 2 else crop


def _shown(pixels: blend.Float32, exposure: Exposure, smoothing: float) -> blend.Float32:
    smooth = cv2.GaussianBlur(pixels, (0, 0), smoothing) if smoothing > 0 else pixels
    return exposure.apply(np.asarray(smooth, np.float32))


def own_detail(pixels: NDArray[Any], matrix: align.Floats, size: int) -> float:
    """Whether a face with more pixels than quality is measured at has their detail: 0..1, and 1 for smaller ones.

    Measured in the photo's own pixels, unless the crop has fewer: turning and enlarging would count as a loss.

    Args:
        pixels: the photo, H x W (x 3), uint8 or uint16.
        matrix: 2 x 3, photo pixel to pixel of the crop of ``size``.
    """
    side = round(size / align.similarity_scale(matrix))
    if min(side, size) <= quality.MEASURED_AT:
        return 1.0
    if side <= size:
        (middle,) = align.transform_points(align.invert(matrix), [((size - 1) / 2,) * 2])
        corner = np.round(middle - (side - 1) / 2)
        matrix, size = np.column_stack([np.eye(2), -corner]), side
    return quality.fine_detail(uint8(coded(_crop(pixels, matrix, size))))


def coded(pixels: NDArray[Any]) -> blend.Float32:
    """Integer pixels as coded values in 0..1."""
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def uint8(values: blend.Float32) -> NDArray[np.uint8]:
    """Coded values as 8-bit pixels."""
    return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
