"""The one list of formats: what is read by its name, what is written, and what each of them can hold."""

from __future__ import annotations

import mimetypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from prefrestore.errors import ImageWriteError

FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".bmp": "BMP",
    ".dib": "BMP",
    ".tga": "TGA",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".pnm": "PPM",
}
"""Name endings that can be written -> Pillow's name of the format."""
WRITABLE_SUFFIXES = frozenset(FORMATS)
# Cameras' own formats hold what a JPEG of high quality holds; everything else becomes PNG.
_BECOME_JPEG = frozenset({".heic", ".heif", ".hif", ".mpo"})
_JPEG_XL = ".jxl"
_ALSO_READ = frozenset(
    """
    .apng .gif .ico .icns .j2c .j2k .jp2 .jpc .jpf .jpx .pbm .pcx .psd .qoi .ras .sgi .bw .rgb .rgba .vda .icb .vst .dds
    """.split()
)
READABLE_SUFFIXES = WRITABLE_SUFFIXES | _BECOME_JPEG | _ALSO_READ | {_JPEG_XL}
"""What is taken out of a folder. A file that is named itself is tried whatever its name."""
# Pictures that nothing here reads, by their names; those that the system's table knows as images come on top.
_RAW = frozenset(
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .iiq .kdc .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl .srw .x3f".split()
)
_OTHER = frozenset(".ai .cdr .eps .exr .fits .hdr .jxr .pdf .pfm .psb .svg .wdp .wmf .emf .xcf".split())

# Twice Pillow's MAX_IMAGE_PIXELS, the line at which Pillow itself refuses a picture as a decompression bomb:
# half a gigabyte as 8-bit RGB. A 30,000 x 5,900 panorama opens, a 30,000 x 30,000 square of a few kilobytes
# does not.
MAX_PIXELS = 178_956_970

LARGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383, "TGA": 65_535, "AVIF": 65_535}
HOLDS_ALPHA = frozenset({"PNG", "TIFF", "WEBP", "TGA", "AVIF"})
HOLDS_16_BIT = frozenset({"PNG", "TIFF"})
HOLDS_CMYK = frozenset({"JPEG", "TIFF"})
HOLDS_METADATA = frozenset({"JPEG", "PNG", "TIFF", "WEBP", "AVIF"})
"""ICC profile, EXIF and XMP."""
HAS_QUALITY = frozenset({"JPEG", "WEBP", "AVIF"})
ALWAYS_COLOUR = frozenset({"WEBP", "AVIF"})
"""Grey pictures are written in these as equal channels."""


def format_of(path: str | Path) -> str:
    """Pillow's name of the format that a name's ending stands for; ImageWriteError if there is none."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ImageWriteError(f"{path}: cannot write '{suffix}' files; name one of {', '.join(sorted(FORMATS))}")
    return FORMATS[suffix]


def output_suffix(suffix: str) -> str:
    """The ending of the output for an input that ends in ``suffix``: its own, else ``.jpg`` or ``.png``."""
    if suffix.lower() in WRITABLE_SUFFIXES:
        return suffix
    return ".jpg" if suffix.lower() in _BECOME_JPEG else ".png"


def is_unread_picture(name: str) -> bool:
    """Whether a file is a picture by its name, but of a kind that is not read here."""
    suffix = Path(name).suffix.lower()
    if suffix in READABLE_SUFFIXES:
        return suffix == _JPEG_XL and not has_jpeg_xl()
    kind = mimetypes.guess_type(f"x{suffix}")[0] or ""
    return suffix in _RAW | _OTHER or kind.startswith("image/")


def has_jpeg_xl() -> bool:
    """Whether the optional package that reads JPEG XL is installed."""
    return find_spec("pillow_jxl") is not None


JPEG_XL_HINT = "JPEG XL needs one more package: pip install 'prefrestore[jxl]'"


@cache
def register_readers() -> None:
    """Teach Pillow HEIC, and JPEG XL if its package is installed. Done once."""
    import pi_heif

    pi_heif.register_heif_opener(thumbnails=False, depth_images=False)
    if has_jpeg_xl():
        import pillow_jxl  # noqa: F401  registers itself
