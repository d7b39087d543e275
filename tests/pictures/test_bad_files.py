"""Files that cannot be read or written: one sentence that names the file, and nothing left behind."""

import errno
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prefrestore.errors import ImageReadError, ImageWriteError
from prefrestore.pictures import photo as imageio
from prefrestore.pictures.encode import WRITABLE_SUFFIXES, write_photo
from prefrestore.pictures.read import as_photo, read_photo


def grid(height: int = 6, width: int = 9, channels: int = 3, dtype: Any = np.uint8) -> Any:
    """Every pixel another value, so that a swap of any two shows."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    steps = np.arange(np.prod(shape)).reshape(shape) * 977
    return (steps % (np.iinfo(dtype).max + 1)).astype(dtype)


def damaged(folder: Path) -> dict[str, Path]:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    files = {}
    for name in ("jpg", "png", "webp", "tif", "bmp"):
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, format={"jpg": "JPEG", "tif": "TIFF"}.get(name, name.upper()))
        files[name] = folder / f"cut.{name}"
        files[name].write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    write_photo(as_photo(grid(40, 40, 3, np.uint16)), folder / "deep.png")
    files["deep"] = folder / "cut_deep.png"
    files["deep"].write_bytes((folder / "deep.png").read_bytes()[:-60])
    return files


@pytest.mark.parametrize("name", ["jpg", "png", "webp", "tif", "bmp", "deep"])
def test_truncated_files(tmp_path: Path, name: str) -> None:
    path = damaged(tmp_path)[name]
    with pytest.raises(ImageReadError, match=path.name):
        read_photo(path)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a"])
def test_files_that_are_no_pictures(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "notes.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageReadError, match=r"notes\.jpg"):
        read_photo(path)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_damage_of_any_kind_is_one_error(tmp_path_factory: Any, data: Any) -> None:
    """Flipped bytes may go unseen, but nothing else than ImageReadError comes out."""
    folder = tmp_path_factory.mktemp("damage")
    suffix = data.draw(st.sampled_from([".jpg", ".png", ".tif", ".webp"]))
    path = folder / f"x{suffix}"
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0"
    photo = imageio.Photo(pixels=grid(20, 20), exif=exif, xmp=b'<x tiff:Orientation="6"/>', icc=b"profile")
    write_photo(photo, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        read_photo(path)
    except ImageReadError as error:
        assert path.name in str(error)


def test_folders_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match=r"gone\.jpg: No such file"):
        read_photo(tmp_path / "gone.jpg")
    with pytest.raises(ImageReadError, match="Is a directory"):
        read_photo(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    Image.fromarray(grid()).save(path)
    path.chmod(0)
    with pytest.raises(ImageReadError, match="Permission denied"):
        read_photo(path)


def bomb(path: Path, width: int, height: int) -> None:
    """A PNG of a few bytes that claims to be huge."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


@pytest.mark.parametrize("size", [(30_000, 30_000), (13_378, 13_377), (1, 200_000_000)])
def test_decompression_bombs(tmp_path: Path, size: tuple[int, int]) -> None:
    bomb(tmp_path / "bomb.png", *size)
    with pytest.raises(ImageReadError, match=r"bomb\.png.*--max-pixels"):
        read_photo(tmp_path / "bomb.png")


@pytest.mark.filterwarnings("error")
def test_wide_pictures_open(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((200, 30_000), np.uint8)).save(tmp_path / "wide.png", compress_level=1)
    assert read_photo(tmp_path / "wide.png").size == (30_000, 200)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_animations_and_pages(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(grid() + shade) for shade in (0, 90, 180)]
    frames[0].save(tmp_path / f"x{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageReadError, match=f"x{suffix} .*3 (frames|pages)"):
        read_photo(tmp_path / f"x{suffix}")


def test_still_gif_is_read_and_written_as_png(tmp_path: Path) -> None:
    Image.fromarray(grid()).convert("P").save(tmp_path / "x.gif")
    photo = read_photo(tmp_path / "x.gif")
    assert photo.pixels.shape == (6, 9, 3)
    assert ".gif" not in WRITABLE_SUFFIXES
    with pytest.raises(ImageWriteError, match=r"x\.gif"):
        write_photo(photo, tmp_path / "x.gif")


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(ImageReadError, match="floating-point"):
        read_photo(tmp_path / "x.tif")


def test_pictures_larger_than_the_format(tmp_path: Path) -> None:
    with pytest.raises(ImageWriteError, match=r"x\.webp: WEBP holds at most 16383"):
        write_photo(as_photo(np.zeros((1, 16_384), np.uint8)), tmp_path / "x.webp")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, deep: bool) -> None:
    target = tmp_path / f"x{suffix}"
    target.write_bytes(b"before")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ImageWriteError, match=f"x{suffix}: No space left"):
        write_photo(as_photo(grid(dtype=np.uint16 if deep else np.uint8)), target)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert target.read_bytes() == b"before"


def test_really_out_of_space(tmp_path: Path) -> None:
    """The system's own limit on the size of a file stands in for the full disk."""
    import subprocess
    import sys

    program = (
        "import resource, sys, numpy as np\n"
        "from prefrestore.errors import ImageWriteError\n"
        "from prefrestore.pictures.encode import write_photo\n"
        "from prefrestore.pictures.read import as_photo\n"
        "noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    write_photo(as_photo(noise), sys.argv[1])\n"
        "except ImageWriteError as error:\n"
        "    print(error)\n"
    )
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.png")], capture_output=True, text=True, check=True
    )
    assert "x.png: File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []
