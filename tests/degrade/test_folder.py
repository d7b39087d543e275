from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prefrestore.degrade.folder import degrade_folder, file_seed, list_images, write_png
from prefrestore.errors import ImageWriteError, InvalidInputError


def store(path: Path, size: tuple[int, int] = (24, 20), seed: int = 0, mode: str = "RGB", **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def test_pairs_with_their_structure(tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    store(source / "a.png")
    store(source / "deep" / "b.JPG", seed=1)
    store(source / "grey.png", mode="L")
    store(source / "alpha.png", mode="RGBA")
    (source / "notes.txt").write_text("no picture")
    store(source / ".hidden.png")
    report = degrade_folder(source, output, "classic", seed=3)
    assert set(report.done) == {"a", "alpha", "deep/b", "grey"}
    assert not report.failed and not report.skipped
    assert np.array_equal(pixels(output / "hq" / "a.png"), pixels(source / "a.png"))
    assert pixels(output / "lq" / "deep" / "b.png").shape == (20, 24, 3)
    assert sorted(p.name for p in (output / "lq").rglob("*") if p.is_file()) == [
        "a.png",
        "alpha.png",
        "b.png",
        "grey.png",
    ]


def test_a_pair_depends_on_seed_and_name_only(tmp_path: Path) -> None:
    for folder, names in (("one", ["a", "b"]), ("two", ["0", "b", "c"])):
        for name in names:
            store(tmp_path / folder / f"{name}.png", seed=ord(name))
        degrade_folder(tmp_path / folder, tmp_path / f"{folder}-out", "old-photo", seed=5)
    same = [(tmp_path / f"{f}-out" / "lq" / "b.png").read_bytes() for f in ("one", "two")]
    assert same[0] == same[1]
    degrade_folder(tmp_path / "one", tmp_path / "other", "old-photo", seed=6)
    assert (tmp_path / "other" / "lq" / "b.png").read_bytes() != same[0]
    assert file_seed(1, "x").random() == file_seed(1, "x").random() != file_seed(1, "y").random()


def test_what_cannot_be_read_is_reported_and_the_rest_done(tmp_path: Path) -> None:
    source = tmp_path / "in"
    store(source / "good.png")
    store(source / "cut.jpg", size=(200, 200))
    whole = (source / "cut.jpg").read_bytes()
    (source / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (source / "text.png").write_text("not a picture")
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(source / "deep.png")
    report = degrade_folder(source, tmp_path / "out")
    assert report.done == ("good",)
    assert [path.name for path, _ in report.failed] == ["cut.jpg", "deep.png", "text.png"]
    assert all(str(path) in sentence for path, sentence in report.failed)
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["good.png", "good.png"]


def test_what_cannot_be_written_is_reported(tmp_path: Path) -> None:
    store(tmp_path / "in" / "a.png")
    store(tmp_path / "in" / "b.png")
    (tmp_path / "out" / "lq" / "a.png").mkdir(parents=True)
    report = degrade_folder(tmp_path / "in", tmp_path / "out")
    assert report.done == ("b",)
    assert "cannot write" in report.failed[0][1]
    assert not list((tmp_path / "out").rglob("*.part*"))


def test_existing_pairs_can_be_kept(tmp_path: Path) -> None:
    store(tmp_path / "in" / "a.png")
    degrade_folder(tmp_path / "in", tmp_path / "out", seed=1)
    before = (tmp_path / "out" / "lq" / "a.png").read_bytes()
    report = degrade_folder(tmp_path / "in", tmp_path / "out", seed=2, skip_existing=True)
    assert report.skipped == ("a",) and not report.done
    assert (tmp_path / "out" / "lq" / "a.png").read_bytes() == before


def test_size_turn_and_progress(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    store(tmp_path / "in" / "turned.jpg", size=(90, 60), exif=exif)
    store(tmp_path / "in" / "small.png", size=(10, 12))
    seen: list[list[Path]] = []

    def watch(files: object) -> list[Path]:
        seen.append(list(files))  # type: ignore[call-overload]
        return seen[-1]

    degrade_folder(tmp_path / "in", tmp_path / "out", size=30, progress=watch)
    assert Image.open(tmp_path / "out" / "hq" / "turned.png").size == (30, 45)
    assert Image.open(tmp_path / "out" / "lq" / "small.png").size == (10, 12)
    assert [p.name for p in seen[0]] == ["small.png", "turned.jpg"]


def test_an_output_inside_the_input_is_not_read_again(tmp_path: Path) -> None:
    store(tmp_path / "a.png")
    for _ in range(2):
        assert degrade_folder(tmp_path, tmp_path / "out").done == ("a",)


def test_wrong_calls(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is not a folder"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match="no picture"):
        degrade_folder(tmp_path, tmp_path / "out")
    store(tmp_path / "in" / "a.png")
    store(tmp_path / "in" / "a.jpg")
    with pytest.raises(InvalidInputError, match="several pictures named a"):
        degrade_folder(tmp_path / "in", tmp_path / "out")
    with pytest.raises(InvalidInputError, match="negative"):
        degrade_folder(tmp_path / "in", tmp_path / "out", seed=-1)
    with pytest.raises(InvalidInputError, match="too small"):
        degrade_folder(tmp_path / "in", tmp_path / "out", size=0)
    with pytest.raises(InvalidInputError, match="no degradation preset"):
        degrade_folder(tmp_path / "in", tmp_path / "out", "worse")
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageWriteError, match="cannot write"):
        write_png(tmp_path / "file" / "a.png", np.zeros((2, 2, 3), np.uint8))
