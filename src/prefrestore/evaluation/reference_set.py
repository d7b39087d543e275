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
from prefrestore.metrics.distribution import Moments, kernel_distance, moments, moments_distance
from prefrestore.metrics.inception import InceptionV3


@dataclass(frozen=True, kw_only=True)
class ReferenceSet:
    """What FID and KID compare with; title: what it is.

    moments: for FID; None for fewer than two pictures. features: (N,2048) of the pictures, for KID; None where a file
    tells the moments alone.
    """

    title: str
    moments: Moments | None
    features: NDArray[np.float32] | None = None

    @property
    def count(self) -> int | None:
        """How many pictures, where that is known."""
        return None if self.features is None else len(self.features)


def load_reference_set(path: Path, extractor: InceptionV3, network: str) -> ReferenceSet:
    """The pictures below a folder, or features from a file that `save_features` wrote, or an .npz of ``mu``, ``sigma``.

    The last is pytorch-fid's format; by which network it was made it does not say.

    Args:
        network: sha256 of the extractor's weights.

    Raises:
        InvalidInputError: no such folder or file, a broken picture, too few, or features of another network.
    """
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as stored:
                if "mu" in stored:
                    known = Moments(stored["mu"].astype(np.float64), stored["sigma"].astype(np.float64))
                    if known.mean.ndim != 1 or known.covariance.shape != known.mean.shape * 2:
                        raise ValueError(f"a mean of {known.mean.shape} and a covariance of {known.covariance.shape}")
                    return ReferenceSet(title=path.name, moments=known)
                features, made_by = stored["features"], str(stored["network"])
        except (OSError, ValueError, KeyError) as error:
            raise InvalidInputError(f"{path} is not a file of features ({error})") from error
        if made_by != network:
            raise InvalidInputError(f"{path} holds features of another network (sha256 {made_by[:12]}...)")
        return _of_features(path.name, features)
    from prefrestore.pictures.read import read_photo

    try:
        rows = np.stack([extractor.of(read_photo(picture).rgb8()) for picture in pictures_in(path).values()])
    except ImageReadError as error:
        raise InvalidInputError(f"the reference set has a broken picture: {error}") from error
    return _of_features(str(path), rows)


def _of_features(title: str, rows: NDArray[np.float32]) -> ReferenceSet:
    return ReferenceSet(title=title, moments=moments(rows) if len(rows) > 1 else None, features=rows)


def save_features(reference: ReferenceSet, path: Path, network: str) -> None:
    """Keep the features, so that the next run need not compute them."""
    assert reference.features is not None
    with written_beside(path) as part, part.open("wb") as stream:
        np.savez(stream, features=reference.features, network=np.array(network), title=np.array(reference.title))


def _distances(features: NDArray[np.float32], reference: ReferenceSet, suffix: str) -> dict[str, dict[str, Any]]:
    """FID and KID (times 1,000, with the spread of its subsets) as entries of a summary."""
    assert reference.moments is not None
    common = {"n": len(features), "n_reference": reference.count, "reference": reference.title}
    told = {f"fid{suffix}": {"mean": moments_distance(moments(features), reference.moments), **common}}
    if reference.features is not None:
        kid = kernel_distance(features, reference.features, rng=np.random.default_rng(0))
        told[f"kid{suffix}"] = {"mean": 1000 * kid.mean, "std": 1000 * kid.std, **common}
    return told


NAMED, PAIRED = "", "_gt"
"""Ends of the columns: against the named reference set, and against the paired references."""
_FEATURES = {NAMED: "reference_features.npz", PAIRED: "ground_truth_features.npz"}


class Distribution:
    """FID and KID of a run, against a named set and against the paired references.

    Args:
        weights: Inception's file; None leaves all blank.
        named: the reference set that was asked for, see `load_reference_set`; papers name FFHQ here.
        references: the folder of the paired references.
        results: gets the hashes of all metrics' networks (``extra["metrics"]``), the reference sets' titles and
            counts, and the reasons of what stays blank (``extra["missing"]``). The features of a folder are kept
            beside it.
        available: the other metrics' networks, see `Evaluator.available`.

    Raises:
        InvalidInputError, WeightsError: the weights or a reference set cannot be used.
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
        self.sets: dict[str, ReferenceSet] = {}
        paths = {NAMED: named, PAIRED: references}
        asked = weights is not None and any(paths.values())
        results.extra["metrics"] = metric_weights(available, weights if asked else None)
        network = ""
        if weights is not None and asked:
            self.extractor, network = InceptionV3(weights), file_hash(weights)
        for suffix, path in paths.items():
            if weights is None:
                self._blank(suffix, "its network was not named (--inception)")
            elif path is None:
                option = "--reference-set" if suffix == NAMED else "--reference"
                self._blank(suffix, f"there is no reference set to compare with ({option})")
            elif self.extractor is not None:
                self.sets[suffix] = found = load_reference_set(path, self.extractor, network)
                results.extra[f"reference_set{suffix}"] = {"title": found.title, "n": found.count}
                if path.is_dir():
                    save_features(found, results.path.with_name(_FEATURES[suffix]), network)
                if found.features is None:
                    results.extra["missing"][f"kid{suffix}"] = f"{found.title} holds a mean and a covariance alone"

    def _blank(self, suffix: str, reason: str) -> None:
        self.results.extra["missing"] |= {f"fid{suffix}": reason, f"kid{suffix}": reason}

    def compare(self, features: Mapping[tuple[str, str], NDArray[np.float32]]) -> None:
        """Add the distances of each set's and system's features."""
        for (title, system), rows in features.items():
            told: dict[str, Any] = {}
            for suffix, reference in self.sets.items():
                if len(rows) < 2 or reference.moments is None:
                    self._blank(suffix, "it needs two pictures on each side")
                else:
                    told |= _distances(rows, reference, suffix)
            self.results.add_distances(title, system, told)

    def over_all(self, features: Mapping[tuple[str, str], NDArray[np.float32]]) -> dict[str, float]:
        """FID to the named set of all sets' pictures together, by system; empty where it cannot be had."""
        systems = {system for _, system in features}
        rows = {name: np.concatenate([v for (_, system), v in features.items() if system == name]) for name in systems}
        known = self.sets[NAMED].moments if NAMED in self.sets else None
        if known is None:
            return {}
        return {name: moments_distance(moments(values), known) for name, values in rows.items() if len(values) > 1}
