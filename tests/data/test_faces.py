import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prefrestore.data import check_disjoint, load_face_set, mix, shared_persons
from prefrestore.data.faces import FaceSet
from prefrestore.data.identity import face_identity
from prefrestore.data.mix import FaceMix, photographs_first
from prefrestore.errors import ImageReadError, InvalidInputError
from prefrestore.files.cache import cache_dir

COLUMNS = ["id", "split", "source", "licence", "synthetic", "size", "person", "defect", "points"]


def face(path: Path, level: int, size: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size, 3), level, np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two train faces, one of them with a defect, one val face and one drawn face."""
    folder = tmp_path / "data"
    points = "4 6 12 6 8 9 5 12 11 12"
    rows = [
        ["a_1", "train", "studio", "CC0 1.0", "0", "16", "p1", "none", points],
        ["a_2", "train", "studio", "CC0 1.0", "0", "16", "p2", "border artifact", points],
        ["a_3", "val", "drawn", "MIT", "1", "16", "p3", "blurry", points],
    ]
    folder.mkdir()
    with (folder / "faces.csv").open("w", newline="") as opened:
        csv.writer(opened).writerows([COLUMNS, *rows])
    captions = [{"id": "a_1", "caption": "A man.", "gender": "man"}, {"id": "a_3", "caption": "A woman."}]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, captions)) + "\n\n")
    for name, split, level in (
        ("a_1", "train", 10),
        ("a_2", "train", 20),
        ("a_3", "val", 30),
        ("g", "synthetic", 40),
    ):
        face(folder / "faces" / split / f"{name}.png", level)
    return folder


def load(root: Path, split: str = "train", **options: object) -> FaceSet:
    return load_face_set(root, split, **{"size": 16, "cache_dir": root.parent / "cache", **options})  # type: ignore[arg-type]


def test_a_tabled_split(root: Path) -> None:
    faces = load(root, size=8)
    assert faces.ids == ("a_1",)
    assert faces.captions == ("A man.",)
    assert faces.persons == ("p1",)
    assert faces.sources == ("studio",)
    assert faces.size == 8 and len(faces) == 1
    assert faces.images.shape == (1, 8, 8, 3) and faces.images.dtype == np.uint8
    assert (faces.images == 10).all()
    np.testing.assert_allclose(faces.points[0], [[2, 3], [6, 3], [4, 4.5], [2.5, 6], [5.5, 6]])


def test_defects_leave_train_only(root: Path) -> None:
    assert load(root, include_defects=True).ids == ("a_1", "a_2")
    assert load(root, "val").ids == ("a_3",)


def test_drawn_faces_have_pixels_only(root: Path) -> None:
    drawn = load(root, "synthetic")
    assert drawn.captions == drawn.persons == (None,)
    assert np.isnan(drawn.points).all()


def test_faces_are_averaged_down_and_enlarged(tmp_path: Path) -> None:
    board = np.zeros((16, 16, 3), np.uint8)
    board[::2, ::2] = 200
    (tmp_path / "in").mkdir()
    Image.fromarray(board).save(tmp_path / "in" / "x.png")
    assert (load(tmp_path / "in", size=8).images == 50).all()
    assert load(tmp_path / "in", size=40).images.shape == (1, 40, 40, 3)


def test_the_cache_is_used_and_follows_the_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(root)
    (cached,) = (root.parent / "cache").iterdir()
    monkeypatch.setattr("prefrestore.data.faces.read_face", None)
    again = load(root)
    assert isinstance(again.images, np.memmap) and not again.images.flags.writeable
    assert [p.name for p in (root.parent / "cache").iterdir()] == [cached.name]
    monkeypatch.undo()
    face(root / "faces" / "train" / "a_1.png", 99, size=17)
    assert (load(root).images == 99).all()


def test_a_damaged_cache_is_named(root: Path) -> None:
    load(root)
    (cached,) = (root.parent / "cache").iterdir()
    cached.write_bytes(cached.read_bytes()[:200])
    with pytest.raises(ImageReadError, match=cached.name):
        load(root)


def test_a_failed_decoding_leaves_no_cache(root: Path) -> None:
    (root / "faces" / "val" / "broken.png").write_text("no picture")
    with pytest.raises(ImageReadError, match=r"broken\.png"):
        load(root, "val")
    assert list((root.parent / "cache").iterdir()) == []


def test_a_plain_folder(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    face(folder / "b.png", 2)
    face(folder / "a.webp", 1)
    (folder / "captions.jsonl").write_text('{"id": "b", "caption": "Someone."}\n')
    faces = load(folder)
    assert faces.ids == ("a", "b")
    assert faces.captions == (None, "Someone.")
    with pytest.raises(InvalidInputError, match="no folder val"):
        load(folder, "val")
    face(folder / "val" / "c.png", 3)
    assert load(folder, "val").ids == ("c",)


def test_what_is_wrong_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is not a folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match="no split 'test'"):
        load(root, "test")
    with pytest.raises(InvalidInputError, match="too small"):
        load(root, size=0)
    Image.new("RGB", (8, 9)).save(root / "faces" / "val" / "oblong.png")
    with pytest.raises(InvalidInputError, match=r"oblong\.png is 8x9 px"):
        load(root, "val")
    face(root / "faces" / "train" / "a_1.webp", 5)
    with pytest.raises(InvalidInputError, match="several pictures named a_1"):
        load(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="no picture"):
        load(tmp_path / "empty")


def test_damaged_tables_are_named(root: Path) -> None:
    table = (root / "faces.csv").read_text()
    (root / "faces.csv").write_text(table.replace("4 6 12 6", "4 six"))
    with pytest.raises(InvalidInputError, match="a_1 has no five points"):
        load(root)
    (root / "faces.csv").write_text(table.replace("person", "who"))
    with pytest.raises(InvalidInputError, match="lacks the columns person"):
        load(root)
    (root / "faces.csv").write_text(table)
    (root / "captions.jsonl").write_text('{"id": "a_1", "caption": "A man."}\n{"id": 3')
    with pytest.raises(InvalidInputError, match=r"captions\.jsonl, line 2"):
        load(root)


def test_disjoint_people(root: Path) -> None:
    train, val = load(root), load(root, "val")
    check_disjoint(train, val)
    assert shared_persons(train, train) == {"p1", "a_1"}
    with pytest.raises(InvalidInputError, match="2 persons are in 'train'"):
        check_disjoint(train, train)


def test_subsets(root: Path) -> None:
    both = load(root, include_defects=True)
    second = both.subset([1])
    assert second.ids == ("a_2",) and second.captions == (None,) and second.persons == ("p2",)
    assert (second.images == 20).all() and second.points.shape == (1, 5, 2)


def test_a_mix_is_drawn_from_seed_and_step(root: Path) -> None:
    sets = [load(root, include_defects=True), load(root, "synthetic")]
    mixed = mix(sets, [3, 1])
    pairs = mixed.draw(2000, seed=1, step=7)
    assert np.array_equal(pairs, mixed.draw(2000, seed=1, step=7))
    assert not np.array_equal(pairs, mixed.draw(2000, seed=1, step=8))
    assert not np.array_equal(pairs, mixed.draw(2000, seed=2, step=7))
    assert (pairs[:, 0] == 0).mean() == pytest.approx(0.75, abs=0.04)
    assert set(map(tuple, pairs.tolist())) == {(0, 0), (0, 1), (1, 0)}
    few = np.array([[1, 0], [0, 1]])
    assert mixed.images(few)[:, 0, 0, 0].tolist() == [40, 20]
    assert mixed.captions(few) == [None, None]
    assert mix(sets).weights == (2.0, 1.0)


@pytest.mark.parametrize(
    ("weights", "within", "expected"),
    [
        ((3.0, 1.0), (), [0.375, 0.375, 0.0625, 0.0625, 0.0625, 0.0625]),
        ((1.0, 1.0), (None, np.array([0.7, 0.1, 0.1, 0.1])), [0.25, 0.25, 0.35, 0.05, 0.05, 0.05]),
        ((1.0, 2.0), (), None),
    ],
)
def test_how_often_each_face_is_drawn(weights: tuple[float, ...], within: tuple, expected: list[float] | None) -> None:
    # Lists stand in for sets of two and four faces: only their lengths count.
    shares = FaceMix(sets=([0] * 2, [0] * 4), weights=weights, shares=within).face_shares()  # type: ignore[arg-type]
    assert shares is None if expected is None else np.allclose(shares, expected)


def test_mixes_that_make_no_sense(root: Path) -> None:
    train = load(root)
    with pytest.raises(InvalidInputError, match="at least one set"):
        mix([])
    with pytest.raises(InvalidInputError, match="8, 16 px"):
        mix([train, load(root, size=8)])
    for weights in ([1, 2], [0], [float("nan")]):
        with pytest.raises(InvalidInputError, match="positive weights"):
            mix([train], weights)


def test_the_cache_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFRESTORE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_dir() == Path("/somewhere/prefrestore")
    monkeypatch.setenv("PREFRESTORE_CACHE", "/here")
    assert cache_dir() == Path("/here")


def test_the_shared_layout(shared_data: Path, tmp_path: Path) -> None:
    # A few links, because decoding two thousand faces takes a while on a busy machine.
    for name in ("faces.csv", "captions.jsonl"):
        (tmp_path / name).symlink_to(shared_data / name)
    for split in ("train", "val", "synthetic"):
        (tmp_path / "faces" / split).mkdir(parents=True)
        for path in sorted((shared_data / "faces" / split).iterdir())[:8]:
            (tmp_path / "faces" / split / path.name).symlink_to(path)
    train, val, drawn = (
        load_face_set(tmp_path, split, size=32, cache_dir=tmp_path / "cache") for split in ("train", "val", "synthetic")
    )
    check_disjoint(train, val)
    lines = (shared_data / "captions.jsonl").read_text().splitlines()
    captioned = {row["id"] for row in map(json.loads, lines) if row.get("caption")}
    for faces in (train, val):
        assert [caption is not None for caption in faces.captions] == [name in captioned for name in faces.ids]
    assert not any(drawn.captions)
    for faces in (train, val):
        # The left eye of the FFHQ template lies at (192.98, 239.95) of 512 px.
        np.testing.assert_allclose(np.median(faces.points[:, 0], axis=0), [12.06, 15.0], atol=0.5)
        assert 20 < faces.images.std() < 120


def test_nobody_of_the_shared_val_is_in_train(shared_data: Path) -> None:
    people: dict[str, set[str]] = {}
    with (shared_data / "faces.csv").open(newline="") as opened:
        for row in csv.DictReader(opened):
            people.setdefault(row["split"], set()).add(row["person"])
    assert people["train"] and people["val"] and not people["train"] & people["val"]


def test_photographs_come_first_and_large_sources_do_not_prevail() -> None:
    real = FaceSet(
        images=np.zeros((22, 4, 4, 3), np.uint8), ids=tuple(map(str, range(22))), captions=(None,) * 22,
        points=np.zeros((22, 5, 2), np.float32), persons=(None,) * 22,
        sources=("officials",) * 16 + ("speakers",) * 4 + ("generator",) * 2, split="train",
        synthetic=(False,) * 20 + (True,) * 2,
    )  # fmt: skip
    drawn = replace(real.subset(range(8)), split="synthetic", synthetic=(True,) * 8)
    mixed = photographs_first([real, drawn])
    assert mixed.weights == pytest.approx((0.9, 0.1))
    shares = mixed.shares[0]
    assert shares is not None and shares.sum() == pytest.approx(1)
    assert shares[:16].sum() / shares[16:20].sum() == pytest.approx(2)  # 16 and 4 faces: their square roots
    pairs = mixed.draw(4000, seed=0, step=0)
    assert np.mean((pairs[:, 0] == 0) & (pairs[:, 1] < 20)) == pytest.approx(0.8, abs=0.03)
    assert photographs_first([real.subset(range(20))]).weights == pytest.approx((0.8,))


def test_small_pictures_are_left_out_where_detail_is_learnt(tmp_path: Path) -> None:
    for name, size in (("large", 40), ("enough", 32), ("small", 31)):
        face(tmp_path / "train" / f"{name}.png", 90, size)
    assert load_face_set(tmp_path, size=32, min_side=32).ids == ("enough", "large")
    with pytest.raises(InvalidInputError, match="41 px or more"):
        load_face_set(tmp_path, size=32, min_side=41)


def test_phrases_stand_beside_the_caption_or_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "faces"
    folder.mkdir()
    for name in "abc":
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
    rows = [{"id": "a", "caption": "A man.", "phrases": ["bald", "no hat"]}, {"id": "b", "phrases": ["a hat"]}]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    faces = load_face_set(folder, size=8)
    assert faces.captions == ("A man.", None, None)
    assert faces.phrases == (("bald", "no hat"), ("a hat",), ())
    assert faces.subset([1]).phrases == (("a hat",),)
    whole = mix([faces], [1.0])
    pairs = np.array([[0, 0], [0, 1], [0, 2]])
    assert whole.captions(pairs) == ["A man.", "a hat", None]
    rng = np.random.default_rng(0)
    drawn = {whole.captions(pairs[:1], rng)[0] for _ in range(40)}
    assert drawn == {"A man.", "bald", "no hat"}
    assert sorted(whole.captions_to_learn_from()) == ["A man.", "a hat", "bald", "no hat"]
    assert face_identity(faces) != face_identity(replace(faces, phrases=()))
