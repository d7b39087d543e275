"""What FID and KID compare with, and when they are left blank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrestore.errors import ImageReadError, InvalidInputError
from prefrestore.evaluation.folders import pictures_in
from prefrestore.evaluation.provenance import metric_weights
from prefrestore.evaluation.results import Results
from prefrestore.files.atomic import written_beside
from prefrestore.files.fingerprints import file_hash
from prefrestore.metrics.distribution import frechet_distance, kernel_distance
from prefrestore.metrics.inception import InceptionV3


@dataclass(frozen=True, kw_only=True)
class ReferenceSet:
    """Features (N,2048) of the pictures that FID and KID compare with; title: what they are."""

    title: str
    features: NDArray[np.float32]


def load_reference_set(path: Path, extractor: InceptionV3, network: str) -> ReferenceSet:
    """The pictures below a folder, or features from a file that `save_features` wrote.

    Args:
        network: sha256 of the extractor's weights.

    Raises:
        InvalidInputError: no such folder or file, a broken picture, or features of another network.
    """
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as stored:
                features, made_by = stored["features"], str(stored["network"])
        except (OSError, ValueError, KeyError) as error:
            raise InvalidInputError(f"{path} is not a file of features ({error})") from error
        if made_by != network:
            raise InvalidInputError(f"{path} holds features of another network (sha256 {made_by[:12]}...)")
        return ReferenceSet(title=path.name, features=features)
    from prefrestore.pictures.read import read_photo

    try:
        rows = [extractor.of(read_photo(picture).rgb8()) for picture in pictures_in(path).values()]
    except ImageReadError as error:
        raise InvalidInputError(f"the reference set has a broken picture: {error}") from error
    return ReferenceSet(title=str(path), features=np.stack(rows))


def save_features(reference: ReferenceSet, path: Path, network: str) -> None:
    """Keep the features, so that the next run need not compute them."""
    with written_beside(path) as part, part.open("wb") as stream:
        np.savez(stream, features=reference.features, network=np.array(network), title=np.array(reference.title))


def _distances(features: NDArray[np.float32], reference: ReferenceSet) -> dict[str, dict[str, Any]]:
    """FID and KID (times 1,000, with the spread of its subsets) as entries of a summary.

    Raises:
        InvalidInputError: fewer than two pictures on a side.
    """
    common = {"n": len(features), "n_reference": len(reference.features), "reference": reference.title}
    kid = kernel_distance(features, reference.features, rng=np.random.default_rng(0))
    return {
        "fid": {"mean": frechet_distance(features, reference.features), **common},
        "kid": {"mean": 1000 * kid.mean, "std": 1000 * kid.std, **common},
    }


class Distribution:
    """FID and KID of a run.

    Args:
        weights: Inception's file; None leaves both blank.
        named: the reference set that was asked for: a folder, or features that `save_features` wrote.
        references: the folder of the paired references, the reference set when none was named.
        results: gets the hashes of all metrics' networks (``extra["metrics"]``), the reference set's title and
            count, and the reasons of what stays blank (``extra["missing"]``). The features of a folder are kept
            beside it.
        available: the other metrics' networks, see `Evaluator.available`.

    Raises:
        InvalidInputError, WeightsError: the weights or the reference set cannot be used.
    """

    def __init__(
        self,
        weights: Path | None,
        named: Path | None,
        references: Path | None,
        results: Results,
        available: Sequence[str] = (),
    ) -> None:
        self.results = results
        self.extractor: InceptionV3 | None = None
        self.reference: ReferenceSet | None = None
        path = named or references
        results.extra["metrics"] = metric_weights(available, weights if path else None)
        if weights is None:
            self._blank("its network was not named (--inception)")
        elif path is None:
            self._blank("there is no reference set to compare with (--reference-set)")
        else:
            self.extractor, network = InceptionV3(weights), file_hash(weights)
            self.reference = load_reference_set(path, self.extractor, network)
            results.extra["reference_set"] = {"title": self.reference.title, "n": len(self.reference.features)}
            if path.is_dir():
                save_features(self.reference, results.path.with_name("reference_features.npz"), network)

    def _blank(self, reason: str) -> None:
        self.results.extra["missing"] |= {"fid": reason, "kid": reason}

    def compare(self, features: Mapping[tuple[str, str], NDArray[np.float32]]) -> None:
        """Add the distances of each set's and system's features."""
        for (title, system), rows in features.items():
            if self.reference is None or min(len(rows), len(self.reference.features)) < 2:
                self._blank("it needs two pictures on each side")
            else:
                self.results.add_distances(title, system, _distances(rows, self.reference))
