"""The network: shapes, gradients, its file; that it learns; and what the bundled one prefers."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.models.scorer import (
    PreferenceScorer,
    bundled_scorer_folder,
    first_scorer,
    load_bundled_scorer,
    load_scorer,
    save_scorer,
    score_all,
)
from prefrestore.preference.bradley_terry import bradley_terry_loss


def small() -> PreferenceScorer:
    scorer = PreferenceScorer(image_size=64, widths=(8, 16), blocks=(1, 1), heads=2)
    return scorer.initialise(torch.Generator().manual_seed(0))


def test_one_score_an_image_at_any_size_with_gradients() -> None:
    scorer = small()
    for height, width in ((64, 64), (96, 96), (128, 80)):
        images = torch.rand(2, 3, height, width, requires_grad=True)
        scores = scorer(images)
        assert scores.shape == (2,) and scores.dtype == torch.float32
        scores.sum().backward()
        assert images.grad is not None and images.grad.isfinite().all() and images.grad.abs().sum() > 0


def test_an_image_is_scored_alike_alone_and_in_a_batch() -> None:
    scorer, images = small(), torch.rand(5, 3, 64, 64)
    assert torch.allclose(score_all(scorer, images, batch=2), scorer(images), atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 63, 64)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match="at least 64 px"):
        small()(torch.zeros(shape))


def test_impossible_configurations_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="block counts"):
        PreferenceScorer(widths=(8, 16), blocks=(1,))
    with pytest.raises(InvalidInputError, match="multiple"):
        PreferenceScorer(image_size=100)


def test_it_overfits_eight_pairs_of_arbitrary_choices() -> None:
    scorer = small()
    generator = torch.Generator().manual_seed(1)
    first, second = torch.rand(2, 8, 3, 64, 64, generator=generator)
    preference = torch.tensor([1.0, 0, 0, 1, 0, 1, 1, 0])
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=3e-3)
    for _ in range(120):
        loss = bradley_terry_loss(scorer(first), scorer(second), preference)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    assert ((scorer(first) > scorer(second)) == (preference > 0.5)).all()


def test_a_saved_scorer_is_half_precision_and_gives_nearly_the_same_scores(tmp_path: Path) -> None:
    scorer, images = small(), torch.rand(3, 3, 64, 64)
    save_scorer(scorer, tmp_path)
    assert next(scorer.parameters()).dtype == torch.float32  # the original is left alone
    loaded = load_scorer(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").stat().st_size < 2.6 * sum(
        p.numel() for p in scorer.parameters()
    )
    assert torch.allclose(loaded(images), scorer(images), atol=5e-3)
    assert not any(p.requires_grad for p in loaded.parameters())
    assert all(p.requires_grad for p in first_scorer(str(tmp_path), 0).parameters())


def test_a_changed_or_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no preference scorer"):
        load_scorer(tmp_path)
    save_scorer(small(), tmp_path)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(WeightsError, match="corrupt"):
        load_scorer(tmp_path)


def test_new_weights_depend_on_the_seed_alone() -> None:
    one, same, other = (first_scorer("none", seed).stem.weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_the_bundled_scorer_is_whole_and_small() -> None:
    scorer = load_bundled_scorer()  # checks the hashes
    assert sum(p.numel() for p in scorer.parameters()) <= 350_000
    assert sum(path.stat().st_size for path in bundled_scorer_folder().iterdir()) <= 750_000


def test_the_bundled_scorer_ranks_a_face_over_its_damaged_versions() -> None:
    picture = pytest.importorskip("skimage.data").astronaut()[0:220, 114:334]
    face = cv2.resize(picture, (256, 256), interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).normal(0, 18, face.shape)
    ladder = [
        face,
        cv2.GaussianBlur(face, (0, 0), 1.8),
        cv2.GaussianBlur(face, (0, 0), 4.0),
        np.clip(face + noise, 0, 255).astype(np.uint8),
    ]
    images = torch.from_numpy(np.stack(ladder)).permute(0, 3, 1, 2).float() / 255
    sharp, blurred, smeared, noisy = score_all(load_bundled_scorer(), images).tolist()
    assert sharp > blurred > smeared
    assert sharp > noisy  # compression it does not tell: see the model card
