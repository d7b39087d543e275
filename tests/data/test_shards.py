"""Shards: the same faces from tar and parquet, an order that needs no memory, and broken samples."""

import io
import json
import pickle
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prefrestore.data import shards
from prefrestore.data.shards import ShardedFaces, load_shards
from prefrestore.errors import ImageReadError, InvalidInputError
from prefrestore.training.pairs import load_training_faces, load_training_mix, load_validation
from prefrestore.training.semantic import Config, training_batch

SIDE = 8


def picture(level: int, size: tuple[int, int] = (SIDE, SIDE)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(buffer, "png")
    return buffer.getvalue()


def write_tar(path: Path, files: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def samples(first: int, count: int) -> list[tuple[str, bytes]]:
    """Pictures of level ``first + k``; the captions as text, as JSON or not at all, by turns."""
    files: list[tuple[str, bytes]] = []
    for level in range(first, first + count):
        files.append((f"set/{level:04d}.png", picture(level)))
        if level % 3 == 0:
            files.append((f"set/{level:04d}.txt", f"Face {level}.\n".encode()))
        elif level % 3 == 1:
            files.append((f"set/{level:04d}.json", json.dumps({"caption": f"Face {level}.", "id": level}).encode()))
    return files


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three tars of 20, 13 and 7 faces, whose levels count up."""
    (tmp_path / "tars").mkdir()
    for name, first, count in (("a", 0, 20), ("b", 20, 13), ("c", 33, 7)):
        write_tar(tmp_path / "tars" / f"{name}.tar", samples(first, count))
    return tmp_path / "tars"


def faces(root: Path, window: int = 8) -> ShardedFaces:
    found = load_shards([root], SIDE)
    return ShardedFaces(shards=found.shards, size=SIDE, window=window)


def levels(found: ShardedFaces, steps: list[int], count: int = 4, seed: int = 0) -> list[int]:
    return [int(v) for step in steps for v in found.images(found.draw(count, seed=seed, step=step))[:, 0, 0, 0]]


def test_every_epoch_visits_each_training_face_once(folder: Path) -> None:
    found = faces(folder)
    assert (found.total, found.held_out, len(found)) == (40, 4, 36)
    epochs = [levels(found, list(range(first, first + 9))) for first in (0, 9)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(4, 40))] * 2
    assert epochs[0] != epochs[1] != levels(found, list(range(9)), seed=1)
    # A window holds neighbours: eight positions never reach over more than the ends of two shards.
    first = sorted(epochs[0][:8])
    assert sum(b - a > 1 for a, b in zip(first, first[1:], strict=False)) <= 1


def test_a_step_is_the_same_whoever_asks_and_whatever_went_before(folder: Path) -> None:
    whole = levels(faces(folder), list(range(6)))
    even, odd = (levels(faces(folder), steps) for steps in ([0, 2, 4], [1, 3, 5]))
    shared = [part[4 * k : 4 * k + 4] for k in range(3) for part in (even, odd)]
    assert sum(shared, []) == whole
    assert levels(pickle.loads(pickle.dumps(faces(folder))), [5]) == whole[20:]  # noqa: S301


def test_captions_belong_to_their_pictures(folder: Path) -> None:
    found = faces(folder)
    rows = found.draw(36, seed=0, step=0)
    for level, caption in zip(found.images(rows)[:, 0, 0, 0], found.captions(rows), strict=True):
        assert caption == (None if level % 3 == 2 else f"Face {level}.")
    assert found.captions_to_learn_from(5) == ["Face 0.", "Face 1.", "Face 3.", "Face 4."]


@pytest.mark.parametrize("struct", [False, True])
def test_parquet_gives_what_tar_gives(folder: Path, tmp_path: Path, struct: bool) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (tmp_path / "parquet").mkdir()
    for name, first, count in (("a", 0, 20), ("b", 20, 13), ("c", 33, 7)):
        pictures = [picture(level) for level in range(first, first + count)]
        texts = [None if level % 3 == 2 else f"Face {level}." for level in range(first, first + count)]
        column = [{"bytes": data, "path": None} for data in pictures] if struct else pictures
        table = pa.table({"image": column, "caption": texts})
        parquet.write_table(table, tmp_path / "parquet" / f"{name}.parquet", row_group_size=6)
    one, other = faces(folder), pickle.loads(pickle.dumps(faces(tmp_path / "parquet")))  # noqa: S301
    for step in (0, 3, 20):
        rows = one.draw(5, seed=2, step=step)
        np.testing.assert_array_equal(rows, other.draw(5, seed=2, step=step))
        np.testing.assert_array_equal(one.images(rows), other.images(rows))
        assert one.captions(rows) == other.captions(rows)
    assert one.captions_to_learn_from() == other.captions_to_learn_from()
    parquet.write_table(pa.table({"pixels": [b""]}), tmp_path / "odd.parquet")
    with pytest.raises(InvalidInputError, match="no column 'image'"):
        load_shards([tmp_path / "odd.parquet"], SIDE)
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "odd.parquet").read_bytes()[:-9])
    with pytest.raises(ImageReadError, match="cut.parquet"):
        load_shards([tmp_path / "cut.parquet"], SIDE)


def test_broken_samples_are_replaced_counted_and_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = samples(0, 9)
    damaged = {"set/0003.png": picture(3)[:40], "set/0004.png": picture(4, (8, 6)), "set/0007.json": b"{"}
    write_tar(tmp_path / "x.tar", [(name, damaged.get(name, data)) for name, data in files])
    found = faces(tmp_path / "x.tar")
    with pytest.warns(UserWarning, match="left out"):
        images = found.images(range(9))
    assert list(images[:, 0, 0, 0]) == [0, 1, 2, 5, 5, 5, 6, 8, 8]
    assert sorted(found.broken) == [3, 4, 7] and "8x6" not in found.broken[3] and "8x6" in found.broken[4]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert faces(tmp_path / "x.tar").captions([3, 7]) == [None, None]  # those of 5 and 8, unseen before
        monkeypatch.setattr(shards, "BROKEN_ALWAYS", 2)
        with pytest.raises(ImageReadError, match="3 samples of the shards are broken"):
            faces(tmp_path / "x.tar").images(range(9))


def test_damaged_shards_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.tar").write_bytes((folder / "a.tar").read_bytes()[:3000])
    with pytest.raises(ImageReadError, match="cut.tar"):
        load_shards([tmp_path / "cut.tar"], SIDE)
    write_tar(tmp_path / "twice.tar", [("k.png", picture(1)), ("k.jpg", picture(1))])
    with pytest.raises(InvalidInputError, match="several pictures named k"):
        load_shards([tmp_path / "twice.tar"], SIDE)
    write_tar(tmp_path / "empty.tar", [("readme.md", b"nothing")])
    with pytest.raises(InvalidInputError, match="no picture"):
        load_shards([tmp_path / "empty.tar"], SIDE)
    with pytest.raises(InvalidInputError, match="there is no shard"):
        load_shards([tmp_path / "none.tar"], SIDE)


def test_stages_train_on_shards_and_validate_on_faces_kept_out_of_them(folder: Path, tmp_path: Path) -> None:
    found = load_training_faces([folder], SIDE)
    batch = training_batch(found, Config(data=(folder,), output_dir=tmp_path, batch_size=4), 0)
    assert batch["lq"].shape == batch["targets"].shape == (4, 3, SIDE, SIDE)  # type: ignore[attr-defined]
    validation = load_validation([folder], SIDE)
    assert list(validation.images[:, 0, 0, 0]) == [0, 1, 2, 3]
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "x.png").write_bytes(picture(77))
    assert load_validation([folder, tmp_path / "plain"], SIDE).images[0, 0, 0, 0] == 77
    with pytest.raises(InvalidInputError, match="folders of faces"):
        load_training_mix([folder], SIDE)
