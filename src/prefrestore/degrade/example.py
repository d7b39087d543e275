"""A photo to show what restoring does: scikit-image's ``astronaut`` (Eileen Collins, NASA, public domain), degraded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prefrestore.degrade import DegradationRange, degrade
from prefrestore.errors import MissingDependencyError
from prefrestore.pictures.encode import write_photo
from prefrestore.pictures.read import as_photo

SEED = 7


def damage() -> DegradationRange:
    """What is done to the photo, one fixed draw: its 90 px face keeps who it is and loses what is fine."""
    return DegradationRange(
        name="demo",
        reference_size=512,
        blur_sigma=(2.0, 2.0),
        kernel_size=41,
        downsample=(2.5, 2.5),
        noise=(7, 7),
        jpeg=(50, 50),
        anisotropic=0.0,
    )


def write_example(path: Path) -> None:
    """The degraded photo, always the same bytes. MissingDependencyError without scikit-image."""
    try:
        from skimage import data
    except ImportError as error:
        raise MissingDependencyError(
            "the demo's photo comes inside scikit-image: pip install 'prefrestore[demo]'"
        ) from error
    pair = degrade(data.astronaut(), damage(), np.random.default_rng(SEED))
    write_photo(as_photo(pair.lq), path)
