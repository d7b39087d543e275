"""SFace in torch gives the vectors of the ONNX network, with gradients."""

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from prefrestore.errors import InvalidInputError
from prefrestore.faces.align import crop_face, estimate_similarity, ffhq_template
from prefrestore.faces.detect import FaceDetector
from prefrestore.faces.identity import ARCFACE_TEMPLATE_112, IdentityEmbedder
from prefrestore.metrics.sface import SFaceNetwork, crop_faces, random_jitter


@pytest.fixture(scope="module")
def network() -> SFaceNetwork:
    return SFaceNetwork()


def _signed(rgb: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].float() / 127.5 - 1


def test_the_same_vector_as_opencv(network: SFaceNetwork) -> None:
    picture = astronaut()
    points = FaceDetector().detect(picture)[0].points
    expected = IdentityEmbedder().embed(picture, points)
    crop = crop_face(picture, estimate_similarity(points, ARCFACE_TEMPLATE_112), 112)
    assert np.allclose(network.embed_crops(_signed(crop))[0].numpy(), expected, atol=1e-4)
    own_crop = network(_signed(picture), torch.from_numpy(points)[None])[0].numpy()
    assert float(own_crop @ expected) > 0.995


def test_crops_lie_on_the_template() -> None:
    """A picture whose red and green are its x and y: the crop shows where each of its pixels came from."""
    size = 256
    y, x = torch.meshgrid(torch.arange(size).float(), torch.arange(size).float(), indexing="ij")
    crop = crop_faces(torch.stack([x, y, x])[None])[0]
    to_crop = np.vstack([estimate_similarity(ffhq_template(size), ARCFACE_TEMPLATE_112), [0, 0, 1]])
    for column, row in ((30, 40), (56, 56), (80, 90)):
        point = (np.linalg.inv(to_crop) @ [column, row, 1])[:2]
        assert np.allclose(crop[:2, row, column].numpy(), point, atol=0.05)


def test_gradients_bring_two_faces_together(network: SFaceNetwork) -> None:
    generator = torch.Generator().manual_seed(0)
    image, other = torch.rand(2, 1, 3, 64, 64, generator=generator) * 2 - 1
    image.requires_grad_(True)
    before = (network(image) * network(other)).sum()
    before.backward()
    with torch.no_grad():
        moved = image + 0.5 * image.grad / image.grad.norm()
        assert (network(moved) * network(other)).sum() > before


def test_jitter_is_small_and_seeded() -> None:
    first, again = (random_jitter(8, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert (first[:, :, :2] - torch.eye(2)).abs().max() < 0.15 and first[:, :, 2].abs().max() <= 0.06
    images = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    still = torch.eye(2, 3).expand(8, -1, -1)
    assert torch.allclose(crop_faces(images, jitter=still), crop_faces(images), atol=1e-5)
    assert not torch.allclose(crop_faces(images, jitter=first), crop_faces(images), atol=1e-3)


def test_points_of_another_shape_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"\(1, 5, 2\)"):
        crop_faces(torch.zeros(1, 3, 64, 64), torch.zeros(2, 5, 2))
