"""Kinds of files beyond the plain ones, what a picture may come as, pages, and limits."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from prefrestore.errors import ImageReadError, ImageWriteError, InvalidInputError
from prefrestore.pictures.encode import write_pages, write_photo
from prefrestore.pictures.formats import has_jpeg_xl
from prefrestore.pictures.read import as_photo, page_numbers, read_photo

NOISE = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)


def heic(tmp_path: Path, **options: Any) -> Path:
    import pillow_heif

    pillow_heif.from_pillow(Image.fromarray(NOISE)).save(tmp_path / "x.heic", quality=90, **options)
    return tmp_path / "x.heic"


def test_heic_is_read_upright_and_becomes_jpeg_with_a_note(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "A maker", 6
    photo = read_photo(heic(tmp_path, exif=exif.tobytes()))
    assert photo.size == (24, 40) and photo.format == "HEIF"
    notes = write_photo(photo, tmp_path / "x.jpg")
    assert any("HEIF" in note for note in notes)
    with Image.open(tmp_path / "x.jpg") as image:
        assert image.size == (24, 40) and image.getexif().get(0x0112, 1) == 1 and image.getexif()[0x010F] == "A maker"


def test_jpeg_xl_is_read_or_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if has_jpeg_xl():
        import pillow_jxl  # noqa: F401

        Image.fromarray(NOISE).save(tmp_path / "x.jxl", lossless=True)
        np.testing.assert_array_equal(read_photo(tmp_path / "x.jxl").pixels, NOISE)
    else:
        (tmp_path / "x.jxl").write_bytes(b"\xff\x0a" + bytes(40))
    monkeypatch.setattr("prefrestore.pictures.read.has_jpeg_xl", lambda: False)
    with pytest.raises(ImageReadError, match=r"prefrestore\[jxl\]"):
        read_photo(tmp_path / "x.jxl")


def test_layers_are_read_as_one_picture(tmp_path: Path) -> None:
    # A Photoshop file by hand: header, no colour table, no resources, two empty layers, raw pixels.
    layer = (
        struct.pack(">4i", 0, 0, 0, 0)
        + struct.pack(">H", 0)
        + b"8BIMnorm\xff\0\0\0"
        + struct.pack(">I", 12)
        + bytes(12)
    )
    layers = struct.pack(">h", 2) + layer + layer
    layers = struct.pack(">I", len(layers)) + layers
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 24, 40, 8, 3) + struct.pack(">II", 0, 0)
    content = head + struct.pack(">I", len(layers)) + layers + struct.pack(">H", 0) + NOISE.transpose(2, 0, 1).tobytes()
    (tmp_path / "x.psd").write_bytes(content)
    photo = read_photo(tmp_path / "x.psd")
    np.testing.assert_array_equal(photo.pixels, NOISE)
    assert any("layers" in note for note in photo.notes)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, io.BytesIO])
def test_bytes_and_streams(wrap: Callable[[bytes], Any]) -> None:
    content = io.BytesIO()
    write_photo(as_photo(NOISE), content, kind="png")
    np.testing.assert_array_equal(read_photo(wrap(content.getvalue())).pixels, NOISE)
    np.testing.assert_array_equal(as_photo(wrap(content.getvalue())).pixels, NOISE)
    with pytest.raises(ImageReadError, match="the picture"):
        read_photo(wrap(b"no picture"))
    with pytest.raises(InvalidInputError, match="kind"):
        write_photo(as_photo(NOISE), io.BytesIO())
    with pytest.raises(ImageWriteError):
        write_photo(as_photo(NOISE), io.BytesIO(), kind="xyz")


@pytest.mark.parametrize("kind", ["jpg", "webp", "avif"])
def test_quality_is_taken(kind: str) -> None:
    sizes = []
    for quality in (20, None, 100):
        content = io.BytesIO()
        write_photo(as_photo(NOISE), content, kind=kind, quality=quality)
        sizes.append(len(content.getvalue()))
    assert sizes[0] < sizes[1] < sizes[2]
    assert write_photo(as_photo(NOISE), io.BytesIO(), kind="png", quality=20) == ("PNG has no quality to choose",)
    for quality in (0, 101):
        with pytest.raises(InvalidInputError, match="quality"):
            write_photo(as_photo(NOISE), io.BytesIO(), kind=kind, quality=quality)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pages_of_a_tiff(tmp_path: Path, dtype: Any) -> None:
    exif = Image.Exif()
    exif[0x010F] = "A maker"
    exif.get_ifd(0x8769)[0x9003] = "1931:05:06 07:08:09"
    scale = 257 if dtype == np.uint16 else 1
    pixels = [np.roll(NOISE, page, 0)[: 24 - page].astype(dtype) * dtype(scale) for page in range(3)]
    from dataclasses import replace

    photos = [replace(as_photo(each), exif=exif.tobytes(), dpi=(300.0, 300.0)) for each in pixels]
    assert write_pages(iter(photos), tmp_path / "x.tif") == ()
    assert page_numbers(tmp_path / "x.tif") == (0, 1, 2)
    with pytest.raises(ImageReadError, match="3 pages"):
        read_photo(tmp_path / "x.tif")
    for page, each in enumerate(pixels):
        photo = read_photo(tmp_path / "x.tif", page=page)
        np.testing.assert_array_equal(photo.pixels, each)
        said = Image.Exif()
        said.load(photo.exif or b"")
        assert said[0x010F] == "A maker" and said.get_ifd(0x8769)[0x9003] == "1931:05:06 07:08:09"
        assert photo.dpi == pytest.approx((300, 300))
    with pytest.raises(ImageWriteError, match="several pages"):
        write_pages(photos, tmp_path / "x.png")


def test_reduced_copies_are_no_pages(tmp_path: Path) -> None:
    pages = [Image.fromarray(NOISE), Image.fromarray(NOISE[::2, ::2])]
    ifd = ImageFileDirectory_v2()
    ifd[254] = 1
    pages[1].encoderinfo = {"tiffinfo": ifd}  # type: ignore[attr-defined]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    assert page_numbers(tmp_path / "x.tif") == (0,)
    assert read_photo(tmp_path / "x.tif").size == (40, 24)


def test_the_limit_of_pixels_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(NOISE).save(tmp_path / "x.png")
    with pytest.raises(ImageReadError, match="max-pixels"):
        read_photo(tmp_path / "x.png", max_pixels=959)
    monkeypatch.setattr("prefrestore.pictures.read.MAX_PIXELS", 300)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    with pytest.raises(ImageReadError, match="too large"):
        read_photo(tmp_path / "x.png", max_pixels=300)
    assert read_photo(tmp_path / "x.png", max_pixels=960).size == (40, 24)
    assert Image.MAX_IMAGE_PIXELS == 150


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(ImageReadError, match="no regular file"):
        read_photo(tmp_path / "x.png")
