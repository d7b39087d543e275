"""The measuring loop, its results, and going on after a stop, with systems that need no model."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from prefrestore.errors import InvalidInputError
from prefrestore.evaluation.columns import markdown, summarise
from prefrestore.evaluation.evaluator import MODELS, Evaluator
from prefrestore.evaluation.folders import MeasuredFace, face_set
from prefrestore.evaluation.measure import Measured, SetAside, measure_faces
from prefrestore.evaluation.results import Results
from prefrestore.evaluation.run import run_sets
from prefrestore.evaluation.systems import Picture, Sample, finished, noise_of
from prefrestore.metrics.pixels import psnr, sharpness

Make = Callable[..., Path]


def shifted(faces: Sequence[MeasuredFace], pictures: Sequence[Picture]) -> list[list[Sample]]:
    """Two samples a face: one grey level up, and two, with latents to match."""

    def sample(picture: Picture, up: int) -> Sample:
        return Sample(picture.clip(0, 250) + up, np.full((1, 2, 2), up, np.float32))

    return [[sample(picture, 1), sample(picture, 2)] for picture in pictures]


@pytest.fixture
def plain() -> Evaluator:
    return Evaluator(without=MODELS)


def test_values_are_means_over_samples_and_the_spread_is_added(folder_of: Make, plain: Evaluator) -> None:
    faces = face_set("x", lq=folder_of("lq", "a.png"), reference=folder_of("gt", "a.png"))
    [found] = measure_faces(faces.faces, {"up": shifted}, plain)
    assert isinstance(found, Measured) and not found.resized and len(found.pictures) == 2
    assert found.reference is not None
    assert found.row["psnr"] == pytest.approx(np.mean([psnr(found.reference, p) for p in found.pictures]))
    # Two values one apart have the standard deviation 1 / sqrt 2.
    assert found.row["pixel_std"] == pytest.approx(2**-0.5, rel=1e-4)
    assert found.row["latent_entropy"] is not None
    assert found.row["identity"] is None and "pairwise_lpips" not in found.row


def test_without_a_reference_only_naturalness_is_measured(folder_of: Make, plain: Evaluator) -> None:
    faces = face_set("x", restored=folder_of("done", "a.png"))
    [found] = measure_faces(faces.faces, {"done": finished}, plain)
    assert isinstance(found, Measured)
    assert {key for key, value in found.row.items() if value is not None} == {"niqe", "sharpness"}


def test_a_broken_picture_and_another_shape_are_set_aside_and_the_rest_goes_on(
    folder_of: Make, plain: Evaluator
) -> None:
    done, gt = folder_of("done", "a.png", "b.png", "c.png"), folder_of("gt", "a.png", "b.png", "c.png")
    (done / "b.png").write_bytes(b"no picture")

    def narrow(faces: Sequence[MeasuredFace], pictures: Sequence[Picture]) -> list[list[Sample]]:
        widths = [90 if face.name == "c" else 128 for face in faces]
        return [[Sample(picture[:, :width])] for picture, width in zip(pictures, widths, strict=True)]

    found = list(measure_faces(face_set("x", restored=done, reference=gt).faces, {"s": narrow}, plain))
    assert [item.face.name for item in found if isinstance(item, Measured)] == ["a"]
    reasons = {item.face.name: item.reason for item in found if isinstance(item, SetAside)}
    assert "b.png" in reasons["b"] and "90x128" in reasons["c"]


def test_a_smaller_restoration_is_brought_to_the_reference_s_size(folder_of: Make, plain: Evaluator) -> None:
    faces = face_set("x", lq=folder_of("lq", "a.png"), reference=folder_of("gt", "a.png"))
    [found] = measure_faces(faces.faces, {"s": lambda f, p: [[Sample(picture[::2, ::2])] for picture in p]}, plain)
    assert isinstance(found, Measured) and found.resized and found.pictures[0].shape == (128, 128, 3)


def test_sharpness_by_hand() -> None:
    assert sharpness(np.full((8, 8, 3), 70, np.uint8)) == pytest.approx(0, abs=1e-9)
    # One white pixel on black, 9 x 9: the Laplacian is -4 * 255 there and 255 at four neighbours, its mean 0.
    point = np.zeros((9, 9, 3), np.uint8)
    point[4, 4] = 255
    assert sharpness(point) == pytest.approx(255**2 * 20 / 81)


def test_a_summary_counts_the_faces_that_have_a_value() -> None:
    summary = summarise([{"psnr": 20.0, "niqe": 1.0}, {"psnr": 30.0, "niqe": None}, {"psnr": None}])
    assert summary["psnr"] == {"mean": 25, "n": 2, "sem": pytest.approx(5)}
    assert summary["niqe"] == {"mean": 1, "n": 1} and "ssim" not in summary
    table = markdown({"ours": summary, "theirs": summarise([{"psnr": 21.0}])}).splitlines()
    assert table[0] == "| system | n | PSNR dB ↑ | NIQE ↓ |"
    assert table[2:] == ["| ours | 2 | 25.00 | 1.00 (1) |", "| theirs | 1 | 21.00 |  |"]


def test_a_stopped_run_goes_on_where_it_was(folder_of: Make, plain: Evaluator, tmp_path: Path) -> None:
    names = ["a.png", "b.png", "c.png"]
    faces = face_set("x", restored=folder_of("done", *names), reference=folder_of("gt", *names))
    path, settings = tmp_path / "r.json", {"seed": 0, "adapters": {"nft": "1"}}
    asked: list[str] = []

    def counting(batch: Sequence[MeasuredFace], pictures: Sequence[Picture]) -> list[list[Sample]]:
        asked.extend(face.name for face in batch)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return finished(batch, pictures)

    first = Results(path, settings, resume=True)
    with pytest.raises(KeyboardInterrupt):
        run_sets([faces], {"s": counting}, plain, first, batch=1)
    first.save()
    second = Results(path, settings | {"adapters": {"grpo": "2"}}, resume=True)
    run_sets([faces], {"s": counting}, plain, second, batch=1)
    # The third face was asked for twice, the first two once.
    assert asked == [face.name for face in faces.faces] + [faces.faces[2].name]
    run_sets([faces], {"s": counting, "other": finished}, plain, second, batch=2)
    assert len(asked) == 4
    stored = json.loads(path.read_text())
    assert {name: len(s["faces"]) for name, s in stored["sets"]["x"]["systems"].items()} == {"s": 3, "other": 3}
    assert stored["settings"]["adapters"] == {"nft": "1", "grpo": "2"}
    with pytest.raises(InvalidInputError, match="other settings \\(adapters: nft, seed\\)"):
        Results(path, {"seed": 1, "adapters": {"nft": "9"}}, resume=True)
    path.write_text("[]")
    with pytest.raises(InvalidInputError, match="not a file of results"):
        Results(path, settings, resume=True)


def test_noise_depends_on_the_face_and_the_sample_and_on_nothing_else() -> None:
    first = noise_of(0, "a", 0, (2, 4, 4))
    assert first.equal(noise_of(0, "a", 0, (2, 4, 4)))
    for other in (noise_of(1, "a", 0, (2, 4, 4)), noise_of(0, "b", 0, (2, 4, 4)), noise_of(0, "a", 1, (2, 4, 4))):
        assert not first.equal(other)
