"""What a file says beside its pixels is kept where there is a place for it, and told where there is none."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from prefrestore.pictures.encode import write_photo
from prefrestore.pictures.exif import exif_for, xmp_for
from prefrestore.pictures.extras import without_thumbnail
from prefrestore.pictures.read import read_photo

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
GREY = SRGB[:16] + b"GRAY" + SRGB[20:]


def chunks(path: Path) -> dict[bytes, bytes]:
    content, found, place = path.read_bytes(), {}, 8
    while place < len(content):
        length, name = struct.unpack_from(">I4s", content, place)
        found[name] = content[place + 8 : place + 8 + length]
        place += 12 + length
    return found


def test_lossless_webp_with_a_profile_stays_lossless(tmp_path: Path) -> None:
    Image.fromarray(NOISE).save(
        tmp_path / "in.webp", lossless=True, icc_profile=SRGB, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"
    )
    write_photo(read_photo(tmp_path / "in.webp"), tmp_path / "out.webp")
    again = read_photo(tmp_path / "out.webp")
    np.testing.assert_array_equal(again.pixels, NOISE)
    assert again.icc == SRGB
    Image.fromarray(NOISE).save(tmp_path / "lossy.webp", quality=90, icc_profile=SRGB)
    assert not read_photo(tmp_path / "lossy.webp").options["lossless"]


@pytest.mark.parametrize("deep", [False, True])
def test_png_texts_and_colours(tmp_path: Path, deep: bool) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "A wedding")
    info.add_itxt("Description", "Zwei Leute, \u00fc")
    info.add(b"gAMA", struct.pack(">I", 45455))
    info.add(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
    info.add(b"cICP", bytes([12, 13, 0, 1]))
    info.add(b"prIV", b"only its maker knows")
    Image.fromarray(NOISE).save(tmp_path / "in.png", pnginfo=info)
    photo = read_photo(tmp_path / "in.png")
    if deep:
        photo = photo.with_pixels(photo.pixels.astype(np.uint16) * 257, None)
    assert any("prIV" in note for note in photo.notes)
    assert write_photo(photo, tmp_path / "out.png") == ()
    before, after = chunks(tmp_path / "in.png"), chunks(tmp_path / "out.png")
    for name in (b"tEXt", b"iTXt", b"gAMA", b"cHRM", b"cICP"):
        assert after[name] == before[name], name
    notes = write_photo(photo, tmp_path / "out.jpg")
    assert any("texts" in note for note in notes) and any("colours" in note for note in notes)


def test_tiff_names_iptc_and_photoshop(tmp_path: Path) -> None:
    ifd = ImageFileDirectory_v2()
    ifd[269], ifd[285] = "A roll", "Page 3"
    iptc, resources = b"\x1c\x02\x78\0\x07caption", b"8BIM\x03\xed\0\0\0\0\0\x04abcd"
    for tag, data in ((33723, iptc), (34377, resources)):
        ifd.tagtype[tag] = 7
        ifd[tag] = data
    ifd[37724] = b"layers of Photoshop"
    Image.fromarray(NOISE).save(tmp_path / "in.tif", tiffinfo=ifd)
    photo = read_photo(tmp_path / "in.tif")
    assert any("37724" in note or "ImageSourceData" in note for note in photo.notes)
    assert write_photo(photo, tmp_path / "out.tif") == ()
    with Image.open(tmp_path / "out.tif") as image:
        tags = image.tag_v2  # type: ignore[attr-defined]
        assert (tags[269], tags[285], tags[33723]) == ("A roll", "Page 3", iptc)
        assert tags[34377] in (resources, (resources,))
    assert write_photo(photo, tmp_path / "out.jpg") == ()
    assert resources in (tmp_path / "out.jpg").read_bytes()
    assert read_photo(tmp_path / "out.jpg").options["photoshop"] == resources
    assert any("IPTC" in note for note in write_photo(photo, tmp_path / "out.webp"))


def test_a_webp_named_jpg_keeps_its_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "A maker"
    Image.fromarray(NOISE).save(tmp_path / "x.webp", exif=exif)
    (tmp_path / "x.webp").rename(tmp_path / "x.jpg")
    for suffix in (".jpg", ".png", ".tif", ".webp", ".avif"):
        write_photo(read_photo(tmp_path / "x.jpg"), tmp_path / f"out{suffix}")
        with Image.open(tmp_path / f"out{suffix}") as image:
            assert image.getexif()[0x010F] == "A maker", suffix


ULTRA_HDR = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description dc:title="T" hdrgm:Version="1.0" hdrgm:GainMapMax="2">'
    b'<Container:Directory><rdf:Seq><rdf:li><Container:Item Item:Semantic="GainMap"/></rdf:li></rdf:Seq>'
    b"</Container:Directory></rdf:Description></x:xmpmeta>"
)


def test_a_gain_map_is_announced_no_more_and_told(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.fromarray(NOISE).save(content, "JPEG", xmp=ULTRA_HDR)
    Image.fromarray(NOISE[:8, :8]).save(content, "JPEG")
    (tmp_path / "x.jpg").write_bytes(content.getvalue())
    photo = read_photo(tmp_path / "x.jpg")
    assert any("gain map" in note for note in photo.notes)
    write_photo(photo, tmp_path / "out.jpg")
    xmp = read_photo(tmp_path / "out.jpg").xmp or b""
    assert b'dc:title="T"' in xmp and b"hdrgm" not in xmp and b"GainMap" not in xmp


def thumbnail_block(order: str = "<") -> bytes:
    """EXIF by hand: sizes 40 x 24 in the second directory's place, a thumbnail, and a maker note behind it."""
    thumbnail = b"\xff\xd8 a small sideways face \xff\xd9"
    first = struct.pack(order + "H", 2)
    first += struct.pack(order + "HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack(order + "HHII", 0x8769, 4, 1, 38)
    first += struct.pack(order + "I", 68)
    inner = struct.pack(order + "H", 2) + struct.pack(order + "HHIHH", 0xA002, 3, 1, 40, 0)
    inner += struct.pack(order + "HHII", 0xA003, 4, 1, 24) + struct.pack(order + "I", 0)
    second = struct.pack(order + "H", 2) + struct.pack(order + "HHII", 0x0201, 4, 1, 98)
    second += struct.pack(order + "HHII", 0x0202, 4, 1, len(thumbnail)) + struct.pack(order + "I", 0)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    block = head + first + inner + second
    assert len(block) == 98
    return b"Exif\0\0" + block + thumbnail + b"MAKER NOTE"


@pytest.mark.parametrize("order", ["<", ">"])
def test_thumbnail_and_size_in_exif_are_of_the_new_picture(tmp_path: Path, order: str) -> None:
    exif = thumbnail_block(order)
    changed = exif_for(exif, (99, 70_000))
    said = Image.Exif()
    said.load(changed)
    assert said.get_ifd(0x8769) == {0xA002: 99, 0xA003: 70_000}
    assert not said.get_ifd(1) and b"face" not in changed and changed.endswith(b"MAKER NOTE")
    for suffix, options in ((".jpg", {}), (".png", {}), (".webp", {"lossless": True})):
        Image.fromarray(NOISE).save(tmp_path / f"in{suffix}", exif=exif, **options)
        write_photo(read_photo(tmp_path / f"in{suffix}"), tmp_path / f"out{suffix}")
        assert b"sideways" not in (tmp_path / f"out{suffix}").read_bytes()
        with Image.open(tmp_path / f"out{suffix}") as image:
            assert image.size == (24, 40)
            inner = image.getexif().get_ifd(0x8769)
            assert (inner[0xA002], inner[0xA003]) == (24, 40)


def test_thumbnails_and_sizes_elsewhere() -> None:
    xmp = b'<a exif:PixelXDimension="40" tiff:ImageLength="24"><xmp:Thumbnails><b/></xmp:Thumbnails></a>'
    assert xmp_for(xmp, (80, 48)) == b'<a exif:PixelXDimension="80" tiff:ImageLength="48"></a>'
    kept = b"8BIM\x04\x04\0\0\0\0\0\x03abc\0"
    thumbnail = b"8BIM\x04\x0c\0\0\0\0\0\x04face"
    assert without_thumbnail(kept + thumbnail + kept) == kept + kept
    assert without_thumbnail(b"no resources") == b"no resources"


@pytest.mark.parametrize(
    ("icc", "mode", "kept"),
    [(LAB, "RGB", False), (GREY, "RGBA", False), (GREY, "RGB", False), (GREY, "L", True), (SRGB, "L", True)],
)
def test_a_profile_of_other_channels_is_left_out(tmp_path: Path, icc: bytes, mode: str, kept: bool) -> None:
    Image.fromarray(NOISE).convert(mode).save(tmp_path / "x.png", icc_profile=icc)
    photo = read_photo(tmp_path / "x.png")
    assert (photo.icc == icc) == kept and any("profile" in note for note in photo.notes) != kept
    notes = write_photo(photo, tmp_path / "x.webp")
    with Image.open(tmp_path / "x.webp") as image:
        assert image.info.get("icc_profile", b"")[16:20] in (b"", b"RGB ")
    assert any("profile" in note for note in notes) == (kept and icc == GREY)


def test_a_resolution_that_is_none(tmp_path: Path) -> None:
    Image.fromarray(NOISE).save(tmp_path / "none.tif")
    assert read_photo(tmp_path / "none.tif").dpi is None
    for number, dpi in enumerate(((1e7, 1e7), (3e9, 3e9))):
        ifd = TiffImagePlugin.ImageFileDirectory_v2()
        ifd[282], ifd[283], ifd[296] = *dpi, 2
        Image.fromarray(NOISE).save(tmp_path / f"{number}.tif", tiffinfo=ifd)
        photo = read_photo(tmp_path / f"{number}.tif")
        assert photo.dpi is None and any("dpi" in note for note in photo.notes)
        write_photo(photo, tmp_path / "out.jpg")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x0f\x01\x02\0", b"junk"]
)
def test_damaged_exif_fails_nothing(tmp_path: Path, suffix: str, exif: bytes) -> None:
    content = io.BytesIO()
    Image.fromarray(NOISE).save(content, "JPEG", exif=b"Exif\0\0" + exif)
    write_photo(read_photo(content.getvalue()), tmp_path / f"out{suffix}")
    assert read_photo(tmp_path / f"out{suffix}").size == (40, 24)


def test_exif_that_is_cut_short_is_told_and_not_warned_of(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Five entries are announced, none is there: Pillow's own words would be lines of code on the terminal."""
    Image.fromarray(NOISE).save(tmp_path / "in.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0")
    recwarn.clear()
    notes = write_photo(read_photo(tmp_path / "in.jpg"), tmp_path / "out.tif")
    assert any("EXIF" in note for note in notes) and not recwarn.list
    whole = thumbnail_block()
    Image.fromarray(NOISE).save(tmp_path / "whole.jpg", exif=whole)
    assert write_photo(read_photo(tmp_path / "whole.jpg"), tmp_path / "whole.tif") == ()


def test_exif_that_is_too_long_for_jpeg(tmp_path: Path) -> None:
    exif = thumbnail_block() + bytes(80_000)
    Image.fromarray(NOISE).save(tmp_path / "x.png", exif=exif)
    notes = write_photo(read_photo(tmp_path / "x.png"), tmp_path / "x.jpg")
    assert any("EXIF" in note for note in notes) and read_photo(tmp_path / "x.jpg").exif is None
