"""How often the autoencoder stage draws each face of a mix."""

import numpy as np

from prefrestore.data.mix import FaceMix
from prefrestore.training.autoencoder import face_shares


# Lists stand in for sets of two and four faces: only their lengths count.
def test_the_weights_of_the_mix_decide_how_often_a_face_is_drawn() -> None:
    mixed = FaceMix(sets=([0] * 2, [0] * 4), weights=(3.0, 1.0))  # type: ignore[arg-type]
    np.testing.assert_allclose(face_shares(mixed), [0.375, 0.375, 0.0625, 0.0625, 0.0625, 0.0625])


def test_faces_that_weigh_alike_are_drawn_as_they_were() -> None:
    assert face_shares(FaceMix(sets=([0] * 2, [0] * 4), weights=(1.0, 2.0))) is None  # type: ignore[arg-type]
