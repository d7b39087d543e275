"""Photos from files, bytes and streams.

Read: what Pillow reads (and HEIC, and JPEG XL where its package is installed), up to ``MAX_PIXELS``. Greyscale,
16-bit, alpha, CMYK and palettes become one of four forms (grey or RGB, 8 or 16 bits), and go back to what they were
where the output's format can hold it.
"""

from __future__ import annotations

import io
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from prefrestore.errors import ImageReadError, InvalidInputError
from prefrestore.pictures import exif as exif_block
from prefrestore.pictures.decode import decode, deep_content, upright
from prefrestore.pictures.extras import extras_of, fitting_profile, resolution
from prefrestore.pictures.formats import JPEG_XL_HINT, MAX_PIXELS, has_jpeg_xl, register_readers
from prefrestore.pictures.photo import Photo
from prefrestore.pictures.tiff import exif_of_tiff, page_kind
from prefrestore.pictures.warned import warnings_heard

Source = str | Path | bytes | bytearray | memoryview | IO[bytes]
"""What a picture is read from: a file's name, a file's content, or an open file that can be read."""

_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
    NotImplementedError,
    struct.error,
    zlib.error,
)
"""What decoders raise at damaged files."""
# These run other programs or hold no pixels of their own.
_NEVER = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})
# Files of several pictures, one of which is the photo: further views, layers, sizes.
_ONE_OF_MANY = {"MPO": "pictures", "HEIF": "pictures", "PSD": "layers", "ICO": "sizes", "ICNS": "sizes"}
_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")


def as_photo(picture: Photo | Source | Image.Image | NDArray[Any], *, max_pixels: int = MAX_PIXELS) -> Photo:
    """Any kind of picture as a Photo: a path, bytes or a stream are read; an array is H x W, H x W x 3 (RGB) or x 4
    (RGBA), 8 or 16 bits.
    """
    if isinstance(picture, Photo):
        return picture
    if isinstance(picture, Image.Image):
        with _telling("the picture"):
            return _from_pillow(picture, None, None)
    if isinstance(picture, (str, Path, bytes, bytearray, memoryview)) or hasattr(picture, "read"):
        return read_photo(picture, max_pixels=max_pixels)  # type: ignore[arg-type]
    array = np.asarray(picture)
    if array.dtype not in (np.uint8, np.uint16) or 0 in array.shape:
        raise InvalidInputError(f"a picture is an array of uint8 or uint16, not {array.dtype} of shape {array.shape}")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3):
        return Photo(pixels=array, mode="L" if array.ndim == 2 else "RGB")
    if array.ndim == 3 and array.shape[2] == 4:
        pixels, alpha = np.ascontiguousarray(array[..., :3]), np.ascontiguousarray(array[..., 3])
        return Photo(pixels=pixels, alpha=alpha, mode="RGBA")
    raise InvalidInputError(f"a picture is H x W, H x W x 3 or H x W x 4, not {array.shape}")


def read_photo(source: Source, *, page: int | None = None, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read one picture.

    Args:
        page: of a TIFF of several pages, from 0 (`page_numbers` has them); None: the file has one picture.
        max_pixels: larger ones are refused before they are unpacked.

    Raises ImageReadError, naming the file: it cannot be read, is no picture or a damaged one, has more than
    ``max_pixels``, is an animation or has several pages, or has a pixel type without a meaning here (floating
    point).
    """
    with _opened(source, page=page, max_pixels=max_pixels) as (image, file, path):
        return _from_pillow(image, file, path, page=page or 0)


class Header(NamedTuple):
    """What a file says before its pixels are read."""

    size: tuple[int, int]
    """Width and height as they are stored, whatever the orientation says."""
    format: str
    """Pillow's name of it."""


def read_header(source: Source) -> Header:
    """The header alone, for a look at what somebody sent; raises what `read_photo` would raise of it."""
    with _opened(source, page=None, max_pixels=MAX_PIXELS) as (image, _, _):
        return Header(image.size, image.format or "PNG")


def page_numbers(source: str | Path, *, max_pixels: int = MAX_PIXELS) -> tuple[int, ...]:
    """The pages of a TIFF that are pictures of their own (no reduced copies, no masks); ``(0,)`` for every other file.

    Raises what `read_photo` raises.
    """
    with _opened(source, page=0, max_pixels=max_pixels) as (image, _, _):
        if image.format != "TIFF":
            return (0,)
        kinds = [page_kind(image, number) for number in range(getattr(image, "n_frames", 1))]
        return tuple(number for number, kind in enumerate(kinds) if kind == "picture") or (0,)


@contextmanager
def _opened(
    source: Source, *, page: int | None, max_pixels: int
) -> Iterator[tuple[Image.Image, IO[bytes], Path | None]]:
    """The picture with its header read, at that page; its file; and its name. Errors become ImageReadError."""
    path = Path(source) if isinstance(source, (str, Path)) else None
    name = str(path or "the picture")
    with _telling(name):
        if path is not None and not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise ImageReadError(f"{name} is no regular file (to read from a pipe, give its content as standard input)")
        if isinstance(source, (bytes, bytearray, memoryview)):
            content: IO[bytes] = io.BytesIO(source)
        elif path is not None:
            content = path.open("rb")
        else:
            content = io.BytesIO(source.read())  # type: ignore[union-attr]
        with content as file, _open(file, name, max_pixels) as image:
            _choose(image, page, name)
            _check_size(image, name, max_pixels)
            yield image, file, path


@contextmanager
def _telling(name: str) -> Iterator[None]:
    try:
        yield
    except ImageReadError:
        raise
    except UnidentifiedImageError as error:
        raise ImageReadError(f"{name} is not a picture of a known format") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        told = f"more than {MAX_PIXELS / 10**6:.4g} million pixels (--max-pixels)"
        raise ImageReadError(f"{name} is too large to open safely: {told}") from error
    except MemoryError as error:
        raise ImageReadError(f"{name} does not fit into memory") from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ImageReadError(f"cannot read {name}: {error.strerror}") from error
        why = " ".join(str(error).split()) or type(error).__name__
        raise ImageReadError(f"{name} is truncated or damaged ({why})") from error


def _open(file: IO[bytes], name: str, max_pixels: int) -> Image.Image:
    """The header only; Pillow's own warning below its limit is not for us, the limit is checked here."""
    register_readers()
    start = file.read(12)
    if start.startswith(_JPEG_XL) and not has_jpeg_xl():
        raise ImageReadError(f"{name} is a JPEG XL picture. {JPEG_XL_HINT}")
    file.seek(0)
    with warnings_heard():
        Image.init()
        limit = Image.MAX_IMAGE_PIXELS
        try:
            if max_pixels > MAX_PIXELS:
                Image.MAX_IMAGE_PIXELS = None
            return Image.open(file, formats=[kind for kind in Image.ID if kind not in _NEVER])
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageReadError(
            f"{name} is {width} x {height} px, more than the {max_pixels / 10**6:.4g} million that are allowed "
            "(--max-pixels)"
        )


def _choose(image: Image.Image, page: int | None, name: str) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames == 1 or image.format in _ONE_OF_MANY:
        return
    if image.format == "TIFF":
        if page is None and [page_kind(image, number) for number in range(frames)].count("picture") > 1:
            raise ImageReadError(f"{name} has {frames} pages; name the one to read")
        image.seek(page or 0)
        return
    raise ImageReadError(f"{name} is an animation of {frames} frames; save the one to restore as a picture of its own")


def _from_pillow(image: Image.Image, file: IO[bytes] | None, path: Path | None, *, page: int = 0) -> Photo:
    name = str(path or "the picture")
    # Loading closes the file, so what needs it comes first.
    place = file.tell() if file is not None else 0
    deep = deep_content(image, file)
    options, notes = extras_of(image, file)
    if file is not None:
        file.seek(place)
    exif, xmp, told = _said(image)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format in _ONE_OF_MANY:
        what = _ONE_OF_MANY[image.format]
        told.append(f"the file has {frames} {what}: one picture of them was read")
    deep_heif = int(image.info.get("bit_depth") or 8)
    image.load()
    decoded = decode(image, deep, name, page=page)
    pixels, cmyk = decoded.pixels, decoded.cmyk
    if deep_heif > 8 and pixels.dtype == np.uint8:
        told.append(f"{deep_heif} bits a channel were rounded to 8")
    # Pillow, OpenCV and the readers of HEIC and JPEG XL turn these upright themselves.
    done = image.format in ("TIFF", "HEIF", "JXL")
    orientation = 1 if done else exif_block.orientation_of(exif, xmp)
    icc, why = (None, []) if cmyk else fitting_profile(image.info.get("icc_profile"), pixels)
    dpi, absurd = resolution(image)
    if orientation in (5, 6, 7, 8) and dpi:
        dpi = (dpi[1], dpi[0])
    return Photo(
        pixels=upright(pixels, orientation),
        alpha=None if decoded.alpha is None else upright(decoded.alpha, orientation),
        path=path,
        format={"MPO": "JPEG"}.get(image.format or "PNG", image.format or "PNG"),
        mode=decoded.mode,
        icc=icc,
        exif=exif_block.exif_upright(exif) if exif else None,
        xmp=exif_block.xmp_upright(xmp) if xmp else None,
        dpi=dpi,
        cmyk=replace(cmyk, inks=upright(cmyk.inks, orientation)) if cmyk else None,
        options=options,
        notes=(*notes, *told, *why, *absurd, *decoded.notes),
    )


def _said(image: Image.Image) -> tuple[bytes | None, bytes | None, list[str]]:
    """EXIF, XMP, and what of them was left out."""
    told = []
    exif: bytes | None = image.info.get("exif")
    if image.format == "TIFF":
        try:
            with warnings_heard() as heard:
                exif = exif_of_tiff(image)
            if heard:
                told.append(f"the EXIF block is damaged: only a part of it could be read ({heard[0].message})")
        except ValueError as error:
            exif = None
            told.append(f"the EXIF block is damaged and was left out ({error})")
    elif exif:
        exif = exif_block.normal(exif)
        if exif is None:
            told.append("the EXIF block is damaged and was left out")
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if xmp is None and image.format == "TIFF":
        xmp = image.tag_v2.get(700)  # type: ignore[attr-defined]
    if isinstance(xmp, str):
        xmp = xmp.encode("utf-8", "surrogateescape")
    elif isinstance(xmp, tuple):
        xmp = bytes(part & 0xFF for part in xmp if isinstance(part, int))
    behind: list[str] = ["HDR gain map"] if any("gainmap" in key for key in image.info.get("aux") or {}) else []
    if xmp:
        xmp, lost = exif_block.xmp_of_one_picture(bytes(xmp))
        behind += [name for name in lost if name not in behind]
    return exif, xmp or None, told + [f"the {name} was left out" for name in behind]
