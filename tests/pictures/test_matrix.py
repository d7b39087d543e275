"""Any pixels, any metadata, any format: what comes back is what went in, or a sentence says what is not."""

import io
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from prefrestore.pictures.encode import write_photo
from prefrestore.pictures.formats import FORMATS, HAS_QUALITY, HOLDS_16_BIT, HOLDS_ALPHA, HOLDS_METADATA
from prefrestore.pictures.photo import Photo
from prefrestore.pictures.read import read_photo

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a dc:title="T" exif:PixelXDimension="1"/></x:xmpmeta>'


@st.composite
def photos(draw: Any) -> Photo:
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    dtype = draw(st.sampled_from([np.uint8, np.uint16]))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    shape = (height, width) if draw(st.booleans()) else (height, width, 3)
    top = np.iinfo(dtype).max
    exif = Image.Exif()
    exif[0x010F] = "A maker"
    exif.get_ifd(0x8769).update({0x9003: "1931:05:06 07:08:09", 0xA002: 7})
    return Photo(
        pixels=rng.integers(0, top + 1, shape).astype(dtype),
        alpha=rng.integers(0, top + 1, (height, width)).astype(dtype) if draw(st.booleans()) else None,
        icc=draw(st.sampled_from([None, SRGB])),
        exif=draw(st.sampled_from([None, exif.tobytes()])),
        xmp=draw(st.sampled_from([None, XMP])),
        dpi=draw(st.sampled_from([None, (300.0, 150.0)])),
        options=draw(
            st.sampled_from([{}, {"png": ((b"tEXt", b"Title\0A roll"),)}, {"photoshop": b"8BIM\x04\x04\0\0\0\0\0\0"}])
        ),
    )


@settings(deadline=None, max_examples=150)
@given(photos(), st.sampled_from(sorted({"jpg", "png", "tif", "webp", "avif", "bmp", "tga", "ppm"})))
def test_what_goes_in_comes_back_or_is_told(photo: Photo, kind: str) -> None:
    content = io.BytesIO()
    notes = " ".join(write_photo(photo, content, kind=kind))
    again = read_photo(content.getvalue())
    name = FORMATS[f".{kind}"]
    assert again.size == photo.size
    flattened = photo.alpha is not None and name not in HOLDS_ALPHA
    rounded = photo.pixels.dtype == np.uint16 and name not in HOLDS_16_BIT
    assert ("transparency" in notes) == flattened and ("8 bits" in notes) == rounded
    if name not in HAS_QUALITY and not flattened and not rounded:
        one, two = photo.pixels, again.pixels
        if one.ndim != two.ndim:
            one = np.repeat(one[..., None], 3, axis=2)
        np.testing.assert_array_equal(one, two)
        if photo.alpha is not None and not (photo.alpha == np.iinfo(photo.alpha.dtype).max).all():
            np.testing.assert_array_equal(photo.alpha, again.alpha)
    if name in HOLDS_METADATA:
        assert again.icc == photo.icc
        if photo.exif:
            said = Image.Exif()
            said.load(again.exif or b"")
            assert said[0x010F] == "A maker" and said.get_ifd(0x8769)[0xA002] == photo.size[0]
        if photo.xmp:
            expected = f'exif:PixelXDimension="{photo.size[0]}"'.encode()
            assert again.xmp is not None and b'dc:title="T"' in again.xmp and expected in again.xmp
    else:
        for field in ("icc", "exif", "xmp"):
            assert (field in notes) == bool(getattr(photo, field))
    for key in ("png", "photoshop"):
        if photo.options.get(key) and again.options.get(key) != photo.options[key]:
            assert "no place" in notes
