"""DISTS against another program's numbers on made-up weights, and by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.metrics import dists
from prefrestore.metrics.dists import DISTS, WEIGHT_FILE, WIDTHS


@pytest.fixture(scope="module")
def files(made_up: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Made-up weights in the published formats: DISTS' own, and LPIPS' vgg with its convolutions."""
    folder = tmp_path_factory.mktemp("dists")
    own = {
        name: torch.from_numpy((made_up.scattered(1475, start) + 1).astype(np.float32))
        for start, name in enumerate(("alpha", "beta"), 1)
    }
    torch.save({name: value.view(1, -1, 1, 1) for name, value in own.items()}, folder / WEIGHT_FILE)
    backbone = {}
    for number, conv in enumerate(DISTS(None, None).convs):
        assert isinstance(conv, torch.nn.Conv2d) and conv.bias is not None
        scale = 3 / np.sqrt(conv.in_channels * 9)
        weight = torch.from_numpy((made_up.scattered(conv.weight.numel(), number) * scale).astype(np.float32))
        backbone[f"convs.{number}.weight"] = weight.view_as(conv.weight)
        backbone[f"convs.{number}.bias"] = torch.from_numpy(
            made_up.scattered(len(conv.bias), number + 50).astype(np.float32)
        )
    save_file(backbone | {"heads.0": torch.ones(64)}, folder / "lpips_vgg.safetensors")
    return folder / WEIGHT_FILE, folder / "lpips_vgg.safetensors"


def test_the_same_distance_as_iqa_pytorch(files: tuple[Path, Path], made_up: Any) -> None:
    """IQA-PyTorch 0.1.14's class on these weights and pictures."""
    model = DISTS(*files)
    first = made_up.smooth(64, 64)
    moved = model.between(model.of(first), model.of(np.roll(first, 3, 1)))
    assert float(moved) == pytest.approx(0.0103015, abs=1e-5)
    first = made_up.smooth(100, 80)
    assert float(model.between(model.of(first), model.of(255 - first))) == pytest.approx(0.0596491, abs=1e-5)
    assert float(model.between(model.of(first), model.of(first))) == pytest.approx(0, abs=1e-6)


def test_by_hand_where_only_the_picture_counts() -> None:
    model = DISTS(None, None)
    # Only red's mean (weight 1) and green's variance (weight 3).
    model.alpha.data = torch.zeros(sum(WIDTHS)).index_fill(0, torch.tensor([0]), 1.0)
    model.beta.data = torch.zeros(sum(WIDTHS)).index_fill(0, torch.tensor([1]), 3.0)
    first = torch.zeros(1, 3, 16, 16)
    first[:, 0], first[:, 1, ::2] = 0.5, 1.0
    second = first.clone()
    second[:, 0], second[:, 1] = 0.25, first[:, 1] / 2
    # Means 1/2 and 1/4: 2 (1/8) / (1/4 + 1/16) = 0.8. Variances 1/4 and 1/16, covariance 1/8: the same 0.8.
    distance = model.between(model.features(first), model.features(second))
    assert float(distance) == pytest.approx(1 - (1 * 0.8 + 3 * 0.8) / 4, abs=1e-4)


def test_l2_pooling_by_hand() -> None:
    # The window is 1/16 (1 2 1, 2 4 2, 1 2 1); a picture of 2 gives 2, less at the padded edge.
    pooled = DISTS(None, None)._pool(torch.full((1, 1, 4, 4), 2.0))
    assert pooled.shape == (1, 1, 2, 2) and float(pooled[0, 0, 1, 1]) == pytest.approx(2)
    assert float(pooled[0, 0, 0, 0]) == pytest.approx((4 * 9 / 16) ** 0.5)


def test_evaluation_measures_it(files: tuple[Path, Path], made_up: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefrestore.evaluation.evaluator import MODELS, Evaluator
    from prefrestore.evaluation.provenance import metric_weights
    from prefrestore.files.weights import file_hash

    monkeypatch.setenv("PREFRESTORE_CACHE", str(files[0].parent))
    monkeypatch.setattr(dists, "SHA256_START", file_hash(files[0])[:8])
    evaluator = Evaluator(without=tuple(metric for metric in MODELS if metric != "dists"))
    assert evaluator.available == ("dists",)
    first = made_up.smooth(64, 64)
    assert evaluator.measure("a", first, np.roll(first, 3, 1))["dists"] == pytest.approx(0.0103015, abs=1e-5)
    assert metric_weights(["dists"])["dists"]["sha256"] == file_hash(files[0])


def test_what_does_not_fit_is_named(files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"alpha": torch.zeros(1, 1475, 1, 1)}, tmp_path / "less.pth")
    with pytest.raises(WeightsError, match=r"less\.pth .*beta"):
        DISTS(tmp_path / "less.pth", files[1])
    with pytest.raises(WeightsError, match=r"convs\.0\.weight"):
        DISTS(files[0], files[0])
    with pytest.raises(InvalidInputError, match="16 px"):
        DISTS(None, None).features(torch.zeros(1, 3, 8, 64))
    monkeypatch.setenv("PREFRESTORE_CACHE", str(files[0].parent))
    with pytest.raises(WeightsError, match="does not begin with f5e65c96"):
        dists.weights_paths()
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "empty"))
    with pytest.raises(WeightsError, match="is missing: put the file there"):
        dists.weights_paths()
