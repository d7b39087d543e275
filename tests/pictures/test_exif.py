"""Which way up, and bytes that nobody may touch."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prefrestore.pictures import exif as block_of
from prefrestore.pictures.decode import upright


def block(orientation: int, order: str) -> bytes:
    """An EXIF block by hand: two entries, then bytes of a maker note."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entries = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    entries += struct.pack(order + "HHII", 0x9999, 7, 4, 0xDEADBEEF)
    return mark + struct.pack(order + "IH", 8, 2) + entries + struct.pack(order + "I", 0) + b"MAKER NOTE"


@settings(deadline=None)
@given(st.integers(1, 8), st.sampled_from("<>"), st.booleans())
def test_only_the_orientation_changes(orientation: int, order: str, header: bool) -> None:
    exif = (b"Exif\0\0" if header else b"") + block(orientation, order)
    assert block_of.orientation_of(exif, None) == orientation
    changed = block_of.exif_upright(exif)
    assert block_of.orientation_of(changed, None) == 1
    assert len(changed) == len(exif) and sum(a != b for a, b in zip(exif, changed, strict=True)) <= 1
    assert changed.endswith(b"MAKER NOTE")


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes_are_survived(data: bytes) -> None:
    for exif in (data, b"Exif\0\0" + data, b"Exif\0\0MM\0*" + data, b"II*\0" + data):
        assert 1 <= block_of.orientation_of(exif, None) <= 8
        assert len(block_of.exif_upright(exif)) == len(exif)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_agrees_with_pillow(orientation: int) -> None:
    from PIL import ImageOps

    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(upright(pixels, orientation), np.array(ImageOps.exif_transpose(image)))


def test_xmp_forms() -> None:
    for form in (b'<a tiff:Orientation="8"/>', b"<tiff:Orientation>8</tiff:Orientation>"):
        assert block_of.orientation_of(None, form) == 8
        assert block_of.orientation_of(None, block_of.xmp_upright(form)) == 1
    assert block_of.orientation_of(None, b"<a/>") == 1
    assert block_of.orientation_of(None, None) == 1
