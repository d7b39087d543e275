"""Weak likeness lowers the strength, no further than it must."""

from typing import Any

import cv2
import numpy as np
import pytest
from stand_ins import SIZE, TWO, Detector, Pipeline, face_at, scene

from prefrestore.pictures.read import as_photo
from prefrestore.restoration.find import find_faces
from prefrestore.restoration.likeness import STEPS, keep, least_likeness
from prefrestore.restoration.photo import RestoreOptions, restore_photo


def at(share: float) -> Any:
    return np.full((4, 4, 3), round(100 * share), np.uint8)


def alike(lost: float) -> Any:
    """At full strength 1 - lost, the same face at none."""
    return lambda face: 1 - lost * float(face[0, 0, 0]) / 100


@pytest.mark.parametrize(
    ("clarity", "lost", "share"),
    [(0.25, 0.1, 1), (0.25, 0.7, 0.75), (0.25, 1.1, 0.5), (0.25, 2.0, 0.25), (0.6, 2.4, 0)],
)
def test_the_greatest_share_that_is_alike_enough(clarity: float, lost: float, share: float) -> None:
    kept = keep(clarity, at, alike(lost))
    assert kept.share == share
    assert kept.similarity >= least_likeness(clarity)
    if share < 1:
        more = STEPS[STEPS.index(share) - 1]
        assert alike(lost)(at(more)) < least_likeness(clarity)


def test_a_ruined_face_owes_less_than_a_good_one() -> None:
    owed = [least_likeness(clarity) for clarity in np.linspace(0, 1, 50)]
    assert owed == sorted(owed) and owed[0] < 0.2 and owed[-1] > 0.4


def test_a_slight_blur_excuses_no_other_face() -> None:
    """Its quality is low, so it is restored; but who it is can be seen: half of a good photo's likeness is owed."""
    data = pytest.importorskip("skimage.data")
    face = cv2.resize(data.astronaut()[0:256, 96:352], (256, 256))
    soft = cv2.GaussianBlur(face, (0, 0), 1.2)
    detector: Any = Detector(face_at(128, 108, 108))
    facts = find_faces(as_photo(soft), soft, detector, 512, RestoreOptions())[0].facts
    assert facts.quality < 0.3
    assert least_likeness(facts.clarity) > 0.4 > least_likeness(facts.quality)


class Embedder:
    """Tells people by how much their faces vary: a stand-in for an identity network."""

    def embed(self, rgb: Any, points: Any = None) -> Any:
        light = float(rgb.astype(np.float64).std()) / 255
        return np.array([np.cos(30 * light), np.sin(30 * light)], np.float32)


def test_weak_likeness_lowers_the_strength_and_says_so() -> None:
    pixels = scene()

    def other(face: Any) -> Any:
        return face + 0.4 * (np.indices((SIZE, SIZE)).sum(0) % 4 < 2)[..., None] - 0.2

    def shown(keep: bool) -> Any:
        options = RestoreOptions(keep_likeness=keep)
        return restore_photo(pixels, Pipeline(other), detector=TWO, options=options, embedder=Embedder())

    kept, loose = shown(keep=True), shown(keep=False)
    assert all(face.strength == 1 for face in loose.faces)
    assert {face.rule for face in kept.faces} == {"likeness"}
    assert all(face.strength < 1 for face in kept.faces)
    for mine, free in zip(kept.faces, loose.faces, strict=True):
        assert mine.similarity is None or mine.similarity > free.similarity
        assert any("lowered" in said for said in mine.warnings)
    assert kept.as_record()["faces"][0]["rule"] == "likeness"
