"""The linear classifiers of the attribute reader on made-up features; its networks have tests of their own."""

from pathlib import Path

import pytest
import torch

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.metrics.attributes import AttributeReader, fit_reader

CLASSES = {"glasses": ("none", "glasses"), "age": ("child", "young", "elderly")}


def faces(count: int, seed: int) -> tuple[torch.Tensor, list[dict[str, str]]]:
    """Features of 40 numbers of which two directions carry the attributes; every fifth face does not tell its age."""
    drawn = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 40, generator=drawn)
    glasses = torch.randint(2, (count,), generator=drawn)
    age = torch.randint(3, (count,), generator=drawn)
    features[:, 3] += 4 * glasses
    features[:, 7] += 4 * age
    rows = [
        {"glasses": CLASSES["glasses"][int(g)]} | ({} if k % 5 == 0 else {"age": CLASSES["age"][int(a)]})
        for k, (g, a) in enumerate(zip(glasses, age, strict=True))
    ]
    return features, rows


def test_it_reads_faces_that_it_never_saw() -> None:
    reader = fit_reader(*faces(400, 0), CLASSES, rank=40)
    features, rows = faces(100, 1)
    said = reader.read(features)
    for name in CLASSES:
        right = [a[name] == b[name] for a, b in zip(said, rows, strict=True) if name in b]
        assert sum(right) > 0.93 * len(right)
    chances = reader.probabilities(features)
    assert torch.allclose(chances["age"].sum(1), torch.ones(100), atol=1e-5)


def test_one_seed_fits_one_reader() -> None:
    first, again = (fit_reader(*faces(200, 0), CLASSES, rank=8) for _ in range(2))
    for name in CLASSES:
        assert torch.equal(first.heads[name][0], again.heads[name][0])


def test_what_is_unsure_is_not_told() -> None:
    reader = fit_reader(*faces(400, 0), CLASSES, rank=40)
    between = torch.zeros(1, 40)
    between[0, 3] = 2.0
    assert "glasses" not in reader.read(between, least=0.95)[0]
    between[0, 3] = 8.0
    assert reader.read(between, least=0.95)[0]["glasses"] == "glasses"


def test_a_reader_is_kept_and_read_again(tmp_path: Path) -> None:
    reader = fit_reader(*faces(100, 0), CLASSES, rank=40)
    reader.save(tmp_path / "reader.safetensors")
    again = AttributeReader.load(tmp_path / "reader.safetensors")
    features, _ = faces(10, 2)
    assert again.classes == CLASSES and again.read(features) == reader.read(features)
    (tmp_path / "broken.safetensors").write_bytes(b"none")
    with pytest.raises(WeightsError, match="attribute reader"):
        AttributeReader.load(tmp_path / "broken.safetensors")
    with pytest.raises(WeightsError, match="attribute reader"):
        AttributeReader.load(tmp_path / "absent.safetensors")


def test_faces_that_are_all_alike_teach_nothing() -> None:
    features, _ = faces(20, 0)
    with pytest.raises(InvalidInputError, match="glasses"):
        fit_reader(features, [{"glasses": "none"}] * 20, {"glasses": CLASSES["glasses"]})
