"""What single formats say beyond profile, EXIF and XMP: found, kept where the output has a place for it, else told."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import IO, Any

from numpy.typing import NDArray
from PIL import Image, TiffTags

from prefrestore.pictures.exif import EXIF_IFD, GPS_IFD
from prefrestore.pictures.photo import icc_space
from prefrestore.pictures.png import ancillary_chunks

# Tags of a TIFF's first directory that describe the picture and not how this one file stores it: names, makers,
# dates, rights, Windows' own texts and ratings.
DESCRIBING_TAGS = (
    *(0x010D, 0x010E, 0x010F, 0x0110, 0x011D, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298),
    *range(0x9C9B, 0x9CA0),
)
XMP_TAG, IPTC_TAG, PHOTOSHOP_TAG, ICC_TAG = 700, 33723, 34377, 34675
# How one file stores its pixels; true of no other.
_STORING_TAGS = frozenset(
    [*range(254, 270), *range(273, 285), *range(286, 294), 296, 297, 317, *range(320, 344), 347, *range(512, 522)]
    + [*range(529, 533), 559, 0xC4A5]
)
_KEPT_TAGS = {*DESCRIBING_TAGS, XMP_TAG, IPTC_TAG, PHOTOSHOP_TAG, ICC_TAG, EXIF_IFD, GPS_IFD}

_PNG_COLOUR = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"mDCv", b"cLLi")
_PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt")
# Kept by their own way (profile, EXIF, resolution) or true of the old pixels' storage only.
_PNG_SILENT = (b"iCCP", b"eXIf", b"pHYs", b"tRNS", b"bKGD", b"sBIT", b"hIST", b"sPLT", b"tIME")
_XMP_KEY = b"XML:com.adobe.xmp\0"

_PHOTOSHOP = b"Photoshop 3.0\0"
_THUMBNAIL_RESOURCES = (1033, 1036)
_SEGMENT = 65_533 - len(_PHOTOSHOP)
# More dots per inch than this is no resolution, and JPEG has no number for it.
_MAX_DPI = 65_535


def extras_of(image: Image.Image, file: IO[bytes] | None) -> tuple[dict[str, Any], list[str]]:
    """What an opened, not yet loaded picture says, for ``Photo.options``, and a sentence for what cannot be kept.

    Keys: ``lossless`` (WebP), ``progressive`` and ``comment`` (JPEG), ``photoshop`` (image resources with IPTC in
    them), ``iptc`` (a TIFF's own), ``png`` (chunks, by name).
    """
    kind, info = image.format or "", image.info
    if kind in ("JPEG", "MPO"):
        return _of_jpeg(image)
    if kind == "PNG" and file is not None:
        return _of_png(file)
    if kind == "TIFF":
        return _of_tiff(image)
    if kind == "WEBP" and file is not None:
        return {"lossless": b"VP8L" in set(_riff_chunks(file))}, []
    return {}, ["the comment was left out"] if info.get("comment") else []


def unheld(options: dict[str, Any], kind: str) -> list[str]:
    """A sentence for what is in ``Photo.options`` and has no place in the format ``kind``."""
    told = []
    chunks = [name for name, _ in options.get("png", ())]
    if kind != "PNG" and any(name in _PNG_TEXT for name in chunks):
        told.append(f"{kind} has no place for the PNG's texts")
    if kind != "PNG" and any(name in _PNG_COLOUR and name != b"sRGB" for name in chunks):
        told.append(f"{kind} has no place for the PNG's own description of its colours, which may look different")
    if kind not in ("JPEG", "TIFF") and (options.get("photoshop") or options.get("iptc")):
        told.append(f"{kind} has no place for IPTC and Photoshop data")
    if kind != "JPEG" and options.get("comment"):
        told.append(f"{kind} has no place for the JPEG's comment")
    return told


def jpeg_segments(options: dict[str, Any]) -> bytes:
    """The segments (APP13) of Photoshop's resources, whole with markers."""
    resources = options.get("photoshop") or b""
    if not resources and options.get("iptc"):
        data = options["iptc"]
        resources = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(data)) + data + b"\0" * (len(data) % 2)
    parts = [resources[start : start + _SEGMENT] for start in range(0, len(resources), _SEGMENT)]
    whole = [_PHOTOSHOP + part for part in parts]
    return b"".join(b"\xff\xed" + struct.pack(">H", len(data) + 2) + data for data in whole)


def _of_jpeg(image: Image.Image) -> tuple[dict[str, Any], list[str]]:
    info, notes = image.info, []
    segments = getattr(image, "applist", [])
    resources = b"".join(data.removeprefix(_PHOTOSHOP) for name, data in segments if name == "APP13")
    if any(name == "APP11" for name, _ in segments):
        notes.append("content credentials (C2PA) hold for the unchanged file only and were left out")
    if any(name == "APP1" and data.startswith(b"http://ns.adobe.com/xmp/extension/") for name, data in segments):
        notes.append("the extended part of XMP was left out")
    return {
        "progressive": bool(info.get("progressive")),
        "comment": info.get("comment"),
        "photoshop": without_thumbnail(resources),
    }, notes


def _of_png(file: IO[bytes]) -> tuple[dict[str, Any], list[str]]:
    kept, lost = [], set()
    for name, data in ancillary_chunks(file):
        if name in _PNG_TEXT and data.startswith(_XMP_KEY):
            continue
        if name in _PNG_TEXT or name in _PNG_COLOUR:
            kept.append((name, data))
        elif name[:1].islower() and name not in _PNG_SILENT:
            lost.add(name.decode("latin-1"))
    return {"png": tuple(kept)}, [f"the PNG's chunks {', '.join(sorted(lost))} were left out"] if lost else []


def _of_tiff(image: Image.Image) -> tuple[dict[str, Any], list[str]]:
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    found = {name: _as_bytes(tags.get(tag)) for name, tag in (("photoshop", PHOTOSHOP_TAG), ("iptc", IPTC_TAG))}
    lost = sorted(tag for tag in tags if tag not in _KEPT_TAGS and tag not in _STORING_TAGS)
    names = ", ".join(TiffTags.lookup(tag).name.replace("unknown", str(tag)) for tag in lost)
    options: dict[str, Any] = {"photoshop": without_thumbnail(found["photoshop"]), "iptc": found["iptc"]}
    return options, [f"the TIFF's tags {names} were left out"] if lost else []


def _as_bytes(value: Any) -> bytes:
    """A tag's value as bytes; IPTC is found as numbers, too (of four bytes in little endian, by old programs)."""
    if isinstance(value, str):
        return value.encode("latin-1", "replace")
    if isinstance(value, tuple) and all(isinstance(part, bytes) for part in value):
        return b"".join(value)
    if isinstance(value, tuple) and all(isinstance(part, int) and 0 <= part < 1 << 32 for part in value):
        return struct.pack(f"<{len(value)}I", *value) if any(part > 255 for part in value) else bytes(value)
    return bytes(value) if isinstance(value, (bytes, bytearray)) else b""


def without_thumbnail(resources: bytes) -> bytes:
    """Photoshop's image resources without their thumbnails (Adobe Photoshop file formats, image resource blocks).

    What cannot be followed to its end comes back as it was.
    """
    kept, place = b"", 0
    while place + 12 <= len(resources):
        number = struct.unpack_from(">H", resources, place + 4)[0]
        name_end = place + 6 + (resources[place + 6] // 2 + 1) * 2
        if name_end + 4 > len(resources):
            return resources
        length = struct.unpack_from(">I", resources, name_end)[0]
        end = name_end + 4 + length + length % 2
        if number not in _THUMBNAIL_RESOURCES:
            kept += resources[place:end]
        place = end
    return kept + resources[place:]


def _riff_chunks(file: IO[bytes]) -> Iterator[bytes]:
    """The names of the chunks of a RIFF file's outermost list (WebP container specification)."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", head)
        yield name
        file.seek(length + length % 2, 1)


def fitting_profile(icc: Any, pixels: NDArray[Any]) -> tuple[bytes | None, list[str]]:
    """The profile, unless it is one of other channels than the pixels have."""
    if not icc:
        return None, []
    space = icc_space(bytes(icc))
    if space == "RGB" or (space == "GRAY" and pixels.ndim == 2):
        return bytes(icc), []
    have = "grey" if pixels.ndim == 2 else "RGB"
    return None, [f"the colour profile is one of {space or 'nothing'}, the pixels are {have}: it was left out"]


def resolution(image: Image.Image) -> tuple[tuple[float, float] | None, list[str]]:
    """Dots per inch across and down, if the file says them."""
    dpi = image.info.get("dpi")
    if not dpi or (image.format == "TIFF" and 282 not in image.tag_v2):  # type: ignore[attr-defined]
        return None, []
    try:
        across, down = float(dpi[0]), float(dpi[1])
    except (ArithmeticError, TypeError, ValueError, IndexError):
        across = down = math.nan
    if 0 < across <= _MAX_DPI and 0 < down <= _MAX_DPI:
        return (across, down), []
    return None, [] if across == down == 0 else [f"a resolution of {across:g} x {down:g} dpi was left out"]
