"""What a measure of sharpness takes for detail: strokes over a blurred face, cells of a mosaic, JPEG blocks, grain.

Four measures tell these from a face's own edges, each giving 1 (no damage) to 0. Their limits were chosen on faces of
the training set: `benchmarks/photos.py sharpness --fit` prints the percentiles, and what comes of them.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from prefrestore.faces.quality import BLURRED_RATIO, NOISE_MASK, SHARP_RATIO, edge_ratio, face_area, measured_grey

# Pairs: where a measure still counts as none, and from where on as certain.
# Median over 95th percentile of fine detail in the face. Sharp faces 0.087 and more in 95 % of the cases, blurred ones
# more; blurred faces under 25 strokes 0.060 at most in 95 %, 0.037 in the middle: skin without grain, hard lines.
SPARSE = (0.062, 0.050)
# From above: grain, noise and its JPEG traces are fine detail everywhere alike. Sharp faces 0.205 at most in 95 %.
GRAINY = (0.22, 0.28)
# Weights of: logarithm of the edges' ratio, this spread, logarithm of the finest detail + 0.1, and 1. Blur, noise and
# JPEG leave edges, grain and texture that do not go together: logistic regression of sharp faces against the bench's
# levels of damage.
NATURAL = (20.45, -26.42, 5.73, 2.31)
UNNATURAL = (1.0, -1.0)
# What such a face keeps of its quality: it is not sharp, and not ruined either.
UNNATURAL_KEEPS = 0.5
# Share of the strongest edges within 6 degrees of one direction (mod 90). Sharp faces 0.145 at most in 98 %, a mosaic
# 0.29 and more, JPEG quality 5 0.17 and more in 95 %.
ALIGNED = (0.145, 0.20)
# Sharpness that is left after a median of 5 x 5 px, which takes strokes of 2 px: 1.247 at most in sharp faces; 25
# strokes over a sharp face, whose crossings stay, 1.61 in the middle.
CROSSED = (1.25, 1.45)
# Steps at every eighth pixel over those between. Sharp faces 2.7 at most, JPEG quality 75 4.3, quality 30 10; quality
# 10 has 6.6 and more.
BLOCKED = (4.3, 6.5)
# Of all steps between neighbours, in the columns between cells, and the least side of a cell that is told from texture.
BORDERS_HOLD, SMALLEST_CELL = 0.9, 3.0
SMALLEST = 32  # px of the photo: of a smaller face there are too few blocks to tell


def own_edges(crop: NDArray[np.uint8], seen: NDArray[np.uint8]) -> float:
    """How far a face's hard edges are its own, 1, and not strokes, cells or blocks, 0.

    Args:
        crop: the aligned face, S x S (x 3).
        seen: the face's box as the photo has it, H x W (x 3): in a crop that was turned, blocks are no longer square.
    """
    grey = measured_grey(crop)
    values = [
        _share(detail_spread(grey), *SPARSE),
        _share(aligned_edges(grey), *ALIGNED),
        _share(left_of_strokes(grey), *CROSSED),
    ]
    if min(seen.shape[:2]) >= SMALLEST:
        values.append(_share(blockiness(seen if seen.ndim == 2 else cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY)), *BLOCKED))
    return min(values)


def naturalness(crop: NDArray[np.uint8]) -> float:
    """How far the fine detail of an aligned face, S x S (x 3), is a sharp photo's, 1, and not grain or blur, 0."""
    grey = measured_grey(crop)
    usual = UNNATURAL_KEEPS + (1 - UNNATURAL_KEEPS) * _share(natural(grey), *UNNATURAL)
    return usual * _share(detail_spread(grey), *GRAINY)


def mosaic_cell(seen: NDArray[np.uint8]) -> float:
    """The side of a mosaic's cells in px, 0 for a picture that is none.

    Cells are flat, so that nearly all steps between neighbours lie in few columns and in few rows. A mosaic that was
    resized or stored as a poor JPEG afterwards is not found.
    """
    grey = seen if seen.ndim == 2 else cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY)
    if min(grey.shape) < SMALLEST:
        return 0.0
    sides = []
    for values in (grey.astype(np.float32), grey.T.astype(np.float32)):
        steps = np.abs(np.diff(values, axis=1)).mean(axis=0)
        borders = steps > steps.mean()
        if not borders.any() or steps[borders].sum() < BORDERS_HOLD * steps.sum():
            return 0.0
        sides.append(len(steps) / float(borders.sum()))
    return float(np.mean(sides)) if min(sides) > SMALLEST_CELL else 0.0


def detail_spread(grey: NDArray[np.uint8]) -> float:
    """The median of the face's fine detail over its 95th percentile; 1 for a face without any."""
    values = grey.astype(np.float32)
    fine = np.abs(values - cv2.GaussianBlur(values, (0, 0), 1.5))[face_area(len(grey))]
    median, strong = np.percentile(fine, [50, 95])
    return float(median / strong) if strong > 0.1 else 1.0


def finest_detail(grey: NDArray[np.uint8]) -> float:
    """Detail of one pixel, as the deviation of noise of that strength in levels of 255: J. Immerkaer's mean."""
    response = np.abs(cv2.filter2D(grey.astype(np.float32), -1, NOISE_MASK))[face_area(len(grey))]
    return float(response.mean()) * math.sqrt(math.pi / 2) / 6


def natural(grey: NDArray[np.uint8]) -> float:
    """How like a sharp photo's its detail is: the logit of a sharp face against a degraded one, see `NATURAL`."""
    found = (math.log(edge_ratio(grey)), detail_spread(grey), math.log(finest_detail(grey) + 0.1), 1.0)
    return float(np.dot(NATURAL, found))


def left_of_strokes(grey: NDArray[np.uint8]) -> float:
    """Sharpness that is left after a median of 5 x 5 px, which takes strokes of 2 px: 1 is a sharp face's."""
    return (edge_ratio(cv2.medianBlur(grey, 5)) - BLURRED_RATIO) / (SHARP_RATIO - BLURRED_RATIO)


def aligned_edges(grey: NDArray[np.uint8]) -> float:
    """The share of the strongest edges in the fullest 6 degrees of direction, modulo 90 degrees."""
    values = grey.astype(np.float32)
    across, down = (cv2.Scharr(values, cv2.CV_32F, *way) / 16 for way in ((1, 0), (0, 1)))
    size = np.hypot(across, down)
    area = face_area(len(grey))
    edges = area & (size > max(float(np.percentile(size[area], 85)), 1.0))
    if edges.sum() < 100:
        return 0.0
    counts = np.histogram(np.degrees(np.arctan2(down[edges], across[edges])) % 90, bins=30, range=(0, 90))[0]
    # Two bins of 3 degrees, wherever they begin.
    return float((counts + np.roll(counts, 1)).max() / counts.sum())


def blockiness(grey: NDArray[np.uint8]) -> float:
    """Steps at every eighth row and column over those between, the weaker of both directions; 1 for no blocks.

    A step counts by what it exceeds its neighbours, so that a face's own edges hardly do.
    """
    found = []
    for values in (grey.astype(np.float32), grey.T.astype(np.float32)):
        steps = np.abs(np.diff(values, axis=1))
        excess = np.maximum(steps[:, 1:-1] - (steps[:, :-2] + steps[:, 2:]) / 2, 0).mean(axis=0)
        phases = np.array([excess[phase::8].mean() for phase in range(8)])
        most = int(phases.argmax())
        # A hundredth of a level keeps a flat picture from having infinitely strong blocks.
        found.append(float((phases[most] + 0.01) / (np.delete(phases, most).mean() + 0.01)))
    return min(found)


def _share(value: float, none: float, certain: float) -> float:
    return float(np.clip((value - certain) / (none - certain), 0, 1))
