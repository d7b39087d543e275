"""Each bad input: one sentence naming it, exit status 1, every other file done, nothing half written."""

import os
import resource
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Restore = Callable[..., Any]


def make_not_an_image(path: Path) -> None:
    path.write_text("dear diary")


def make_empty(path: Path) -> None:
    path.write_bytes(b"")


def make_truncated(path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (80, 80, 3), dtype=np.uint8)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-2000])


def make_bomb(path: Path) -> None:
    """A PNG of some kilobytes that claims 60,000 x 60,000 px."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b""))


def make_animation(path: Path) -> None:
    frames = [Image.new("L", (20, 20), 60 * n) for n in range(3)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


def make_dangling(path: Path) -> None:
    path.symlink_to(path.parent / "gone")


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("diary.jpg", make_not_an_image, "not a picture"),
        ("empty.png", make_empty, "not a picture"),
        ("cut.jpg", make_truncated, "truncated"),
        ("bomb.png", make_bomb, "too large|safely"),
        ("moving.gif", make_animation, "animation of 3 frames"),
        ("gone.png", make_dangling, "No such file"),
    ],
)
def test_a_file_that_cannot_be_read(
    restore: Restore, photo: Path, tmp_path: Path, name: str, make: Callable[[Path], None], said: str
) -> None:
    make(tmp_path / name)
    ran = restore(tmp_path / name, photo, "-o", tmp_path / "out")
    assert ran.code == 1
    (line,) = [line for line in ran.text.splitlines() if line.startswith("failed:")]
    assert name in line and any(part in line for part in said.split("|")), line
    assert "1 restored, 1 failed" in ran.text
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["aunt.json", "aunt.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes everything")
def test_no_permission(restore: Restore, photo: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked.png"
    shutil.copy(photo, locked)
    locked.chmod(0)
    ran = restore(locked, photo, "-o", tmp_path / "out")
    assert ran.code == 1 and "locked.png" in ran.text and "1 restored, 1 failed" in ran.text
    (tmp_path / "shut").mkdir(mode=0o500)
    ran = restore(photo, "-o", tmp_path / "shut")
    assert ran.code == 1 and "shut" in ran.text


def test_a_path_that_is_not_there(restore: Restore, photo: Path, tmp_path: Path) -> None:
    ran = restore("nowhere.jpg", "nothing/*.png", photo, "-o", tmp_path / "out")
    assert ran.code == 1
    assert "there is no file nowhere.jpg" in ran.text and "nothing matches nothing/*.png" in ran.text
    assert "1 restored, 2 failed" in ran.text


def test_an_output_that_cannot_be_a_folder(restore: Restore, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    ran = restore(photo, "-o", tmp_path / "file")
    assert ran.code == 2 and "file" in ran.text and "folder" in ran.text
    ran = restore(photo, "-o", tmp_path / "file" / "below")
    assert ran.code == 1 and "below" in ran.text


def make_picture(path: Path, width: int, height: int) -> Path:
    Image.fromarray(np.full((height, width, 3), 120, np.uint8)).save(path)
    return path


@pytest.mark.parametrize(("width", "height"), [(64, 64), (1, 1), (30_000, 12)])
def test_a_picture_without_a_face_is_passed_through(
    restore: Restore, photo: Path, tmp_path: Path, width: int, height: int
) -> None:
    plain = make_picture(tmp_path / "plain.png", width, height)
    ran = restore(plain, photo, "-o", tmp_path / "out")
    assert ran.code == 1
    assert "plain.png: no face was found" in ran.text and "1 restored, 1 without a face" in ran.text
    assert (tmp_path / "out/plain.png").read_bytes() == plain.read_bytes()
    assert (tmp_path / "out/plain.json").is_file()


def test_two_hundred_faces(restore: Restore, portrait: NDArray[np.uint8], tmp_path: Path) -> None:
    head = np.asarray(Image.fromarray(portrait[:120, 30:150]).resize((64, 64)))
    Image.fromarray(np.tile(head, (10, 20, 1))).save(tmp_path / "crowd.png")
    # Those at the picture's edge are cut by it, and rules leave them out.
    ran = restore(tmp_path / "crowd.png", "-o", tmp_path / "out", "--steps", "1", "--faces", "all")
    assert ran.code == 0, ran.text
    assert "200 of 200 faces" in ran.text


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses to let a file grow beyond `size` bytes, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_nothing_half_written(restore: Restore, photo: Path, tmp_path: Path) -> None:
    small = make_picture(tmp_path / "small.png", 20, 20)
    with files_of_at_most(8_000):
        ran = restore(photo, small, "-o", tmp_path / "out")
    assert ran.code == 1
    (line,) = [line for line in ran.text.splitlines() if line.startswith("failed:")]
    assert "cannot write" in line and "aunt.png" in line
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["small.json", "small.png"]


def test_a_corrupt_weight_file(restore: Restore, photo: Path, tmp_path: Path) -> None:
    from prefrestore.files.weights import write_hashes
    from prefrestore.pipeline.build import load_preset_pipeline

    model = tmp_path / "model"
    load_preset_pipeline("tiny").save_pretrained(model)
    write_hashes(model)
    ran = restore(photo, "-o", tmp_path / "good", "--model", model)
    assert ran.code == 0, ran.text
    weights = next(model.glob("transformer/*.safetensors"))
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    ran = restore(photo, "-o", tmp_path / "out", "--model", model)
    assert ran.code == 1 and weights.name in ran.text and "corrupt" in ran.text
    assert not (tmp_path / "out").exists()


def test_choices_that_are_not_there(restore: Restore, photo: Path, tmp_path: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        ran = restore(photo, "-o", tmp_path / "out", "--device", "cuda")
        assert ran.code == 2 and "--device cuda" in ran.text
    ran = restore(photo, "-o", tmp_path / "out", "--preset", "huge")
    assert ran.code == 2 and "huge" in ran.text
    ran = restore(photo, "-o", tmp_path / "out", "--background", tmp_path / "gone.pth")
    assert ran.code == 1 and "gone.pth" in ran.text
    ran = restore(photo, "-o", tmp_path / "out", "--scale", "3")
    assert ran.code == 2 and "scale is 1, 2 or 4" in ran.text
