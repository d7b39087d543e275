"""``prefrestore restore --samples --uncertainty`` with the tiny preset."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Restore = Callable[..., Any]


def pixels(path: Path) -> NDArray[Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def test_the_record_and_the_map(restore: Restore, photo: Path, tmp_path: Path) -> None:
    for name in ("once", "again"):
        ran = restore(photo, "-o", tmp_path / name, "--uncertainty", "--seed", "3")
        assert ran.code == 0, ran.text
    names = sorted(path.name for path in (tmp_path / "once").iterdir())
    assert names == ["aunt.json", "aunt.png", "aunt.uncertainty.png"]
    for name in names:
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    record = json.loads((tmp_path / "once/aunt.json").read_text())
    assert (record["samples"], record["choice"]) == (4, "medoid")
    said = record["faces"][0]["uncertainty"]
    assert said["samples"] == 4 and said["chosen_seed"] == 3 + said["chosen"]
    assert 0 < said["pixel_std_mean"] < said["pixel_std_max"] < 1
    assert 0 < said["map_std_mean"] < said["map_std_max"] < 1
    assert 0 < said["pairwise_identity_distance"] < 2
    assert -12.4 < said["latent_entropy_nats"] < 10
    for measure in ("pairwise_lpips", "landmark_std_px_512"):
        assert (said[measure] is None) == (measure in said["reasons"])
    shown, heat = pixels(tmp_path / "once/aunt.png"), pixels(tmp_path / "once/aunt.uncertainty.png")
    assert heat.shape[1] == shown.shape[1] and heat.shape[0] > shown.shape[0]
    assert (heat[:8] == shown[:8]).all(), "what lies outside the face is the photo"
    assert (heat[: len(shown)] != shown).any()


def test_the_first_sample_is_the_ordinary_result_and_the_chosen_seed_gives_the_chosen(
    restore: Restore, photo: Path, tmp_path: Path
) -> None:
    assert restore(photo, "-o", tmp_path / "plain", "--seed", "5").code == 0
    assert restore(photo, "-o", tmp_path / "first", "--seed", "5", "--samples", "3", "--choose", "first").code == 0
    assert (tmp_path / "plain/aunt.png").read_bytes() == (tmp_path / "first/aunt.png").read_bytes()
    assert not (tmp_path / "first/aunt.uncertainty.png").exists()
    assert restore(photo, "-o", tmp_path / "medoid", "--seed", "5", "--samples", "3").code == 0
    seed = json.loads((tmp_path / "medoid/aunt.json").read_text())["faces"][0]["uncertainty"]["chosen_seed"]
    assert restore(photo, "-o", tmp_path / "again", "--seed", str(seed)).code == 0
    ours, theirs = pixels(tmp_path / "medoid/aunt.png").astype(int), pixels(tmp_path / "again/aunt.png")
    assert np.abs(ours - theirs).max() <= 1


def test_an_aligned_face(restore: Restore, photo: Path, tmp_path: Path) -> None:
    assert restore(photo, "-o", tmp_path / "out", "--aligned", "--samples", "2", "--uncertainty").code == 0
    face, heat = pixels(tmp_path / "out/aunt.png"), pixels(tmp_path / "out/aunt.uncertainty.png")
    assert heat.shape[1] == face.shape[1] and heat.shape[0] > face.shape[0]


def test_one_restoration_has_no_spread(restore: Restore, photo: Path, tmp_path: Path) -> None:
    assert restore(photo, "-o", tmp_path / "out").code == 0
    record = json.loads((tmp_path / "out/aunt.json").read_text())
    assert record["samples"] == 1 and record["choice"] is None
    assert record["faces"][0]["uncertainty"] is None


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--samples", "0"), 2, "Invalid value for '--samples'"),
        (("--samples", "1", "--uncertainty"), 2, "uncertainty needs 2 samples or more"),
        (("--choose", "medoid"), 2, "choice needs 2 samples or more"),
        (("--samples", "2", "--choose", "worst"), 2, "'worst' is not one of"),
    ],
)
def test_bad_input(
    restore: Restore, photo: Path, tmp_path: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    ran = restore(photo, "-o", tmp_path / "out", *options)
    assert ran.code == code and said in " ".join(ran.text.split()), ran.text
    assert not (tmp_path / "out").exists()
