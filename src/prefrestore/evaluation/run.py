"""Measure whole sets of faces into `Results`: what `evaluate`, `ablate` and the benchmarks share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prefrestore.evaluation.evaluator import Evaluator
from prefrestore.evaluation.folders import MeasuredFace, MeasuredSet
from prefrestore.evaluation.measure import Measured, SetAside, measure_faces
from prefrestore.evaluation.results import Results
from prefrestore.evaluation.systems import System

if TYPE_CHECKING:
    from prefrestore.metrics.inception import InceptionV3

_SAVE_EVERY = 20.0


def run_sets(
    sets: Sequence[MeasuredSet],
    systems: Mapping[str, System],
    evaluator: Evaluator,
    results: Results,
    *,
    batch: int = 8,
    extractor: InceptionV3 | None = None,
    thresholds: Mapping[str, float] | None = None,
    each: Callable[[str, Measured | SetAside], None] = lambda title, item: None,
) -> dict[tuple[str, str], NDArray[np.float32]]:
    """Measure what `results` does not hold yet; the JSON is written every 20 s and at the end of each set.

    Args:
        thresholds: by set: the likeness to the input under which a face counts as unlike it.
        each: called with a set's title and each face under each system, once it is measured or set aside.

    Returns:
        Inception's features (N,2048) by set and system, when there is an extractor.
    """
    features: dict[tuple[str, str], list[NDArray[np.float32]]] = {}
    for faces in sets:
        results.begin(faces)
        saved = time.monotonic()

        def is_done(face: MeasuredFace, system: str, title: str = faces.title) -> bool:
            return results.is_done(title, system, face.name)

        for item in measure_faces(faces.faces, systems, evaluator, batch=batch, extractor=extractor, is_done=is_done):
            if isinstance(item, Measured) and (alike := item.row.get("input_likeness")) is not None:
                if (threshold := (thresholds or {}).get(faces.title)) is not None:
                    item.row["unlike_input"] = float(alike < threshold)
            results.add(faces.title, item)
            if isinstance(item, Measured) and item.features is not None:
                features.setdefault((faces.title, item.system), []).append(item.features)
            each(faces.title, item)
            if time.monotonic() - saved > _SAVE_EVERY:
                results.save()
                saved = time.monotonic()
        results.save()
    return {key: np.stack(rows) for key, rows in features.items()}
