"""Files in every form that holds a photo, there and back, and every kind of damage."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from prefrestore.errors import InvalidInputError
from prefrestore.pictures import photo as imageio
from prefrestore.pictures.encode import write_photo
from prefrestore.pictures.read import as_photo, read_photo

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def grid(height: int = 6, width: int = 9, channels: int = 3, dtype: Any = np.uint8) -> Any:
    """Every pixel another value, so that a swap of any two shows."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    steps = np.arange(np.prod(shape)).reshape(shape) * 977
    return (steps % (np.iinfo(dtype).max + 1)).astype(dtype)


def exif_bytes(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "A maker"
    exif.get_ifd(0x8769)[0x9003] = "1931:05:06 07:08:09"
    return exif.tobytes()


def seen(path: Path) -> Any:
    """What any viewer shows."""
    from PIL import ImageOps

    with Image.open(path) as image:
        return np.array(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tiff", ".webp", ".jpg"])
def test_orientation_is_applied_once_and_reset(tmp_path: Path, orientation: int, suffix: str) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    pixels = np.repeat(np.repeat(grid() // 64 * 64, 8, 0), 8, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
    Image.fromarray(pixels).save(source, exif=exif if suffix == ".tiff" else exif_bytes(orientation), **options)
    photo = read_photo(source)
    tolerance = 12 if suffix == ".jpg" else 0
    assert np.abs(photo.pixels.astype(int) - seen(source)).max() <= tolerance
    write_photo(photo, target)
    with Image.open(target) as image:
        assert image.getexif().get(0x0112, 1) == 1
        if suffix != ".tiff":
            assert image.getexif()[0x010F] == "A maker"
            assert image.getexif().get_ifd(0x8769)[0x9003] == "1931:05:06 07:08:09"
    assert np.abs(seen(target).astype(int) - seen(source)).max() <= 2 * tolerance


@pytest.mark.parametrize(
    ("mode", "shape", "dtype"),
    [
        ("1", (6, 9), np.uint8),
        ("L", (6, 9), np.uint8),
        ("LA", (6, 9), np.uint8),
        ("P", (6, 9, 3), np.uint8),
        ("RGB", (6, 9, 3), np.uint8),
        ("RGBA", (6, 9, 3), np.uint8),
        ("I;16", (6, 9), np.uint16),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_pixel_types_go_there_and_back(
    tmp_path: Path, mode: str, shape: tuple[int, ...], dtype: Any, suffix: str
) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    if mode == "I;16":
        image = Image.fromarray(grid(channels=1, dtype=np.uint16))
    else:
        image = Image.fromarray(grid(channels=3 if mode == "P" else 4)).convert(mode)
    image.save(source)
    photo = read_photo(source)
    assert photo.pixels.shape == shape and photo.pixels.dtype == dtype
    assert (photo.alpha is not None) == (mode in ("LA", "RGBA"))
    assert photo.mode == mode or suffix == ".png"
    assert write_photo(photo, target) == ()
    again = read_photo(target)
    np.testing.assert_array_equal(again.pixels, photo.pixels)
    if photo.alpha is not None:
        np.testing.assert_array_equal(again.alpha, photo.alpha)
    assert photo.rgb8().shape == (6, 9, 3) and photo.rgb8().dtype == np.uint8


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_and_their_metadata_survive(tmp_path: Path, alpha: bool, channels: int, suffix: str) -> None:
    pixels = grid(channels=channels, dtype=np.uint16)
    photo = imageio.Photo(
        pixels=pixels,
        alpha=grid(channels=1, dtype=np.uint16)[::-1].copy() if alpha else None,
        icc=SRGB,
        exif=exif_bytes(1),
        xmp=XMP.replace(b'"6"', b'"1"'),
        dpi=(300.0, 300.0),
    )
    target = tmp_path / f"deep{suffix}"
    assert write_photo(photo, target) == ()
    again = read_photo(target)
    if channels == 1 and alpha:
        assert (again.pixels == pixels[..., None]).all()
    else:
        np.testing.assert_array_equal(again.pixels, pixels)
    if alpha:
        np.testing.assert_array_equal(again.alpha, photo.alpha)
    assert again.icc == SRGB and again.xmp == photo.xmp
    assert again.dpi == pytest.approx((300, 300), abs=0.1)
    with Image.open(target) as image:
        image.load()
        assert image.getexif()[0x010F] == "A maker"
        assert image.getexif().get_ifd(0x8769)[0x9003] == "1931:05:06 07:08:09"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_metadata_survives(tmp_path: Path, suffix: str) -> None:
    photo = imageio.Photo(pixels=grid(), icc=SRGB, exif=exif_bytes(1), xmp=XMP, dpi=(300.0, 150.0))
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    write_photo(photo, one)
    write_photo(read_photo(one), two)
    again = read_photo(two)
    assert again.icc == SRGB
    # Pillow itself takes the orientation out of a TIFF's XMP.
    assert b"<rdf:Description " in (again.xmp or b"")
    with Image.open(two) as image:
        assert image.getexif()[0x010F] == "A maker"
        assert image.getexif().get_ifd(0x8769)[0x9003] == "1931:05:06 07:08:09"
    if suffix != ".webp":
        assert again.dpi == pytest.approx((300, 150), abs=0.1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_deep_pictures_are_turned_too(tmp_path: Path, orientation: int, suffix: str) -> None:
    from prefrestore.pictures.decode import upright

    pixels = grid(dtype=np.uint16)
    path = tmp_path / f"x{suffix}"
    write_photo(imageio.Photo(pixels=pixels, exif=exif_bytes(orientation)), path)
    if suffix == ".tif":
        # The writer takes photos for upright, so the tag is put in by hand: the maker's tag becomes it.
        content = path.read_bytes()
        place = content.index(struct.pack("<HH", 0x010F, 2))
        tag = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
        # Directories are sorted; readers here do not mind one that is not.
        path.write_bytes(content[:place] + tag + content[place + 12 :])
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.pixels, upright(pixels, orientation))


def test_orientation_in_xmp_alone_counts(tmp_path: Path) -> None:
    Image.fromarray(grid()).save(tmp_path / "x.webp", lossless=True, xmp=XMP)
    photo = read_photo(tmp_path / "x.webp")
    assert photo.size == (6, 9)
    assert b'tiff:Orientation="1"' in (photo.xmp or b"")


def test_jpeg_segments_and_comment_survive(tmp_path: Path) -> None:
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x0c\x1c\x02\x78\0\x07caption"
    segment = b"\xff\xed" + struct.pack(">H", len(iptc) + 2) + iptc
    Image.fromarray(grid()).save(tmp_path / "in.jpg", comment=b"a comment", extra=segment, progressive=True)
    write_photo(read_photo(tmp_path / "in.jpg"), tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.info["comment"] == b"a comment" and image.info["progressive"]
    assert segment in (tmp_path / "out.jpg").read_bytes()


@pytest.mark.parametrize("suffix", [".tif", ".jpg"])
def test_cmyk_keeps_its_inks(tmp_path: Path, suffix: str) -> None:
    inks = np.repeat(np.repeat(grid(channels=4) // 64 * 64, 16, 0), 16, 1)
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    Image.fromarray(inks, "CMYK").save(source, **({"quality": 95} if suffix == ".jpg" else {}))
    photo = read_photo(source)
    assert photo.pixels.shape == (96, 144, 3) and photo.mode == "CMYK"
    changed = photo.pixels.copy()
    changed[:10, :10] = (200, 30, 40)
    write_photo(photo.with_pixels(changed, None), target)
    with Image.open(source) as before, Image.open(target) as after:
        assert after.mode == "CMYK"
        one, two = np.array(before).astype(int), np.array(after).astype(int)
    assert np.abs(one - two)[16:, 16:].max() <= (0 if suffix == ".tif" else 24)
    assert np.abs(read_photo(target).pixels[2:8, 2:8].astype(int) - (200, 30, 40)).max() <= 8


def test_cmyk_becomes_rgb_where_it_must(tmp_path: Path) -> None:
    Image.fromarray(grid(channels=4), "CMYK").save(tmp_path / "in.tif")
    notes = write_photo(read_photo(tmp_path / "in.tif"), tmp_path / "out.png")
    assert "CMYK" in notes[0]
    assert read_photo(tmp_path / "out.png").mode == "RGB"


def test_a_useless_cmyk_profile_is_noted(tmp_path: Path) -> None:
    Image.fromarray(grid(channels=4), "CMYK").save(tmp_path / "in.tif", icc_profile=SRGB)
    photo = read_photo(tmp_path / "in.tif")
    assert "profile" in photo.notes[0]


def test_what_a_format_cannot_hold_is_said(tmp_path: Path) -> None:
    pixels = grid(dtype=np.uint16)
    alpha = np.zeros((6, 9), np.uint16)
    photo = imageio.Photo(pixels=pixels, alpha=alpha, icc=SRGB)
    notes = write_photo(photo, tmp_path / "x.bmp")
    assert len(notes) == 3 and "transparency" in notes[0] and "8 bits" in notes[1] and "icc" in notes[2]
    assert (read_photo(tmp_path / "x.bmp").pixels == 255).all()


def test_lossless_webp_stays_lossless(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "in.webp", lossless=True)
    write_photo(read_photo(tmp_path / "in.webp"), tmp_path / "out.webp")
    np.testing.assert_array_equal(read_photo(tmp_path / "out.webp").pixels, noise)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "jpeg", "group4"])
def test_tiff_compressions(tmp_path: Path, compression: str) -> None:
    image = Image.fromarray(grid(32, 32)).convert("1" if compression == "group4" else "RGB")
    image.save(tmp_path / "in.tif", compression=compression)
    photo = read_photo(tmp_path / "in.tif")
    write_photo(photo, tmp_path / "out.tif")
    np.testing.assert_array_equal(read_photo(tmp_path / "out.tif").pixels, photo.pixels)


def test_tiff_strips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefrestore.pictures.tiff.STRIP_BYTES", 40)
    write_photo(as_photo(grid(31, 5)), tmp_path / "x.tif")
    np.testing.assert_array_equal(read_photo(tmp_path / "x.tif").pixels, grid(31, 5))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3]), st.sampled_from([np.uint8, np.uint16]))
def test_tiny_pictures(tmp_path_factory: Any, height: int, width: int, channels: int, dtype: Any) -> None:
    folder = tmp_path_factory.mktemp("tiny")
    pixels = grid(height, width, channels, dtype)
    for suffix in (".png", ".tif"):
        write_photo(as_photo(pixels), folder / f"x{suffix}")
        np.testing.assert_array_equal(read_photo(folder / f"x{suffix}").pixels, pixels)


def test_arrays_and_images_are_photos() -> None:
    assert as_photo(grid(channels=4)).alpha is not None
    assert as_photo(Image.fromarray(grid()).convert("LA")).is_grey
    for bad in (np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(InvalidInputError):
            as_photo(bad)
