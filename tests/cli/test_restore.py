"""``prefrestore restore`` with the tiny preset: what each option changes."""

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


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def record(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_a_photo_is_restored_and_recorded(restore: Restore, photo: Path, tmp_path: Path) -> None:
    ran = restore(photo, "-o", tmp_path / "out", "--seed", "5", "--steps", "1", "--prompt", "A woman smiles.")
    assert ran.code == 0, ran.text
    assert "1 restored" in ran.text
    assert files(tmp_path / "out") == ["aunt.json", "aunt.png"]
    before, after = pixels(photo), pixels(tmp_path / "out/aunt.png")
    assert before.shape == after.shape and (before != after).any()
    assert (before[:8] == after[:8]).all(), "what lies outside the face keeps its bytes"
    said = record(tmp_path / "out/aunt.json")
    assert (said["preset"], said["seed"], said["steps"], said["prompt"]) == ("tiny", 5, 1, "A woman smiles.")
    assert [face["status"] for face in said["faces"]] == ["restored"]


def test_one_seed_gives_the_same_bytes_whatever_the_jobs(restore: Restore, photo: Path, tmp_path: Path) -> None:
    for name in ("b.jpg", "c.webp", "d/e.png"):
        (photo.parent / name).parent.mkdir(exist_ok=True)
        Image.open(photo).rotate(5 * len(name)).save(photo.parent / name)
    for jobs in ("1", "4"):
        assert restore(photo.parent, "-o", tmp_path / jobs, "--jobs", jobs).code == 0
    names = files(tmp_path / "1")
    assert names == files(tmp_path / "4") and len(names) == 8
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "4" / name).read_bytes(), name


@pytest.mark.parametrize("option", [("--seed", "1"), ("--steps", "3"), ("--fidelity", "1"), ("--scale", "2")])
def test_an_option_changes_the_picture(restore: Restore, photo: Path, tmp_path: Path, option: tuple[str, ...]) -> None:
    assert restore(photo, "-o", tmp_path / "plain").code == 0
    assert restore(photo, "-o", tmp_path / "other", *option).code == 0
    plain, other = pixels(tmp_path / "plain/aunt.png"), pixels(tmp_path / "other/aunt.png")
    assert plain.shape != other.shape or (plain != other).any()


@pytest.mark.parametrize("option", ["--dtype=bfloat16", "--guidance-scale=1.5"])
def test_an_option_is_taken(restore: Restore, photo: Path, tmp_path: Path, option: str) -> None:
    ran = restore(photo, "-o", tmp_path / "out", option)
    assert ran.code == 0, ran.text


def test_chosen_faces_only(restore: Restore, portrait: NDArray[np.uint8], tmp_path: Path) -> None:
    Image.fromarray(np.hstack([portrait] * 3)).save(tmp_path / "three.png")
    assert restore(tmp_path / "three.png", "-o", tmp_path / "out", "--faces", "0,2").code == 0
    said = record(tmp_path / "out/three.json")
    assert [face["status"] for face in said["faces"]] == ["restored", "skipped", "restored"]
    changed = (pixels(tmp_path / "three.png") != pixels(tmp_path / "out/three.png")).any(axis=(0, 2))
    assert changed[:192].any() and not changed[192:384].any() and changed[384:].any()


def test_a_face_that_is_not_there_and_a_bad_list(restore: Restore, photo: Path, tmp_path: Path) -> None:
    ran = restore(photo, "-o", tmp_path / "out", "--faces", "3")
    assert ran.code == 1 and "aunt.png" in ran.text and "no face 3" in ran.text
    ran = restore(photo, "-o", tmp_path / "out", "--faces", "one")
    assert ran.code == 2 and "'one'" in ran.text
    assert not (tmp_path / "out").exists()


def test_crops_and_compare(restore: Restore, photo: Path, tmp_path: Path) -> None:
    assert restore(photo, "-o", tmp_path / "out", "--crops", "--compare").code == 0
    assert files(tmp_path / "out") == [
        "aunt.json",
        "aunt.png",
        "aunt_compare.png",
        "aunt_faces/0_after.png",
        "aunt_faces/0_before.png",
    ]
    both = pixels(tmp_path / "out/aunt_compare.png")
    assert (both[:, :192] == pixels(photo)).all()
    assert (both[:, -192:] == pixels(tmp_path / "out/aunt.png")).all()
    assert pixels(tmp_path / "out/aunt_faces/0_after.png").shape == (64, 64, 3)


def test_aligned_faces_are_not_searched_for(restore: Restore, tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(tmp_path / "face.png")
    assert restore(tmp_path / "face.png", "-o", tmp_path / "out", "--aligned").code == 0
    assert pixels(tmp_path / "out/face.png").shape == (64, 64, 3)


def test_skip_existing(restore: Restore, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert restore(photo, "-o", out).code == 0
    before = (out / "aunt.png").read_bytes()
    stamp = (out / "aunt.png").stat().st_mtime_ns
    ran = restore(photo, "-o", out, "--skip-existing", "--jobs", "1")
    assert ran.code == 0 and "1 there already" in ran.text, "where and how fast it runs decides nothing"
    assert (out / "aunt.png").stat().st_mtime_ns == stamp
    ran = restore(photo, "-o", out, "--skip-existing", "--seed", "9")
    assert ran.code == 0 and "1 restored" in ran.text and "seed" in ran.text
    assert (out / "aunt.png").read_bytes() != before
    Image.open(photo).rotate(3).save(photo)
    ran = restore(photo, "-o", out, "--skip-existing", "--seed", "9")
    assert ran.code == 0 and "1 restored" in ran.text and "changed" in ran.text


def test_a_dry_run_finds_faces_and_writes_nothing(restore: Restore, photo: Path, tmp_path: Path) -> None:
    ran = restore(photo, "-o", tmp_path / "out", "--dry-run")
    assert ran.code == 0 and "1 would be restored" in ran.text and "face 0:" in ran.text
    assert not (tmp_path / "out").exists()


def test_a_face_left_alone_leaves_the_file_alone(restore: Restore, tmp_path: Path) -> None:
    data = pytest.importorskip("skimage.data")
    small = Image.fromarray(data.astronaut()).resize((80, 80), Image.Resampling.BOX)
    small.save(tmp_path / "small.jpg", quality=97)
    ran = restore(tmp_path / "small.jpg", "-o", tmp_path / "out")
    assert ran.code == 0 and "too small: 13 px" in ran.text and "1 left as they were" in ran.text
    assert (tmp_path / "out/small.jpg").read_bytes() == (tmp_path / "small.jpg").read_bytes()
    assert record(tmp_path / "out/small.json")["faces"][0]["status"] == "skipped"


def test_captions_for_many_pictures(restore: Restore, photo: Path, tmp_path: Path) -> None:
    Image.open(photo).save(photo.parent / "uncle.png")
    (tmp_path / "c.jsonl").write_text('{"image": "in/uncle.png", "caption": "A man with grey hair."}\n')
    out = tmp_path / "out"
    assert restore(photo.parent, "-o", out, "--captions", tmp_path / "c.jsonl", "--prompt", "A face.").code == 0
    assert record(out / "aunt.json")["prompt"] == "A face."
    assert record(out / "uncle.json")["prompt"] == "A man with grey hair."
    photo.with_suffix(".txt").write_text("A woman smiles.")
    assert restore(photo, "-o", tmp_path / "beside", "--captions", "txt").code == 0
    assert restore(photo, "-o", tmp_path / "plain", "--prompt", "A woman smiles.").code == 0
    assert record(tmp_path / "beside/aunt.json") == record(tmp_path / "plain/aunt.json")
    assert (tmp_path / "beside/aunt.png").read_bytes() == (tmp_path / "plain/aunt.png").read_bytes()
    ran = restore(photo, "-o", tmp_path / "none", "--captions", tmp_path / "missing.json")
    assert ran.code == 2 and "missing.json" in ran.text


def test_the_published_procedure_of_an_aligned_face(restore: Restore, tmp_path: Path) -> None:
    """It sees the picture's own pixels, and the output is what the pipeline's own call gives."""
    from prefrestore.pipeline.build import load_preset_pipeline
    from prefrestore.restoration.photo import face_generator

    face = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8))
    face.save(tmp_path / "face.png")
    ran = restore(tmp_path / "face.png", "-o", tmp_path / "out", "--aligned", "--reference")
    assert ran.code == 0, ran.text
    said = record(tmp_path / "out/face.json")
    assert (said["steps"], said["guidance_scale"], said["fidelity"], said["reference"]) == (30, 2.0, 0.0, True)
    expected = load_preset_pipeline("tiny")(face, generator=[face_generator(0, 0)], reference=True).images[0]
    assert np.abs(pixels(tmp_path / "out/face.png").astype(int) - np.asarray(expected)).max() <= 1
    ran = restore(tmp_path / "face.png", "-o", tmp_path / "drawn", "--aligned", "--reference", "--sample-tokens")
    assert ran.code == 0 and (pixels(tmp_path / "drawn/face.png") != pixels(tmp_path / "out/face.png")).any()
    ran = restore(tmp_path / "face.png", "-o", tmp_path / "two", "--aligned", "--reference", "--samples", "2")
    assert ran.code == 2 and "one restoration" in ran.text


def test_the_published_procedure_in_a_photo(restore: Restore, photo: Path, tmp_path: Path) -> None:
    assert restore(photo, "-o", tmp_path / "out", "--reference", "--steps", "2", "--batch-faces", "2").code == 0
    said = record(tmp_path / "out/aunt.json")
    assert (said["steps"], said["guidance_scale"]) == (2, 2.0) and said["faces"][0]["status"] == "restored"
