"""PNG files (third edition): their chunks, and 16 bits a channel, which Pillow cannot write in colour."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

# Chunks of texts and colours are small; what claims to be larger is passed over.
_LARGEST = 8 << 20


def ancillary_chunks(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Name and data of the chunks beside the pixels."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name == b"IEND":
            return
        passed = name[:1].isupper() or length > _LARGEST
        data = b"" if passed else file.read(length)
        file.seek(4 + (length if passed else 0), 1)
        if not passed:
            yield name, data


def deep_png(
    pixels: NDArray[np.uint16],
    alpha: NDArray[np.uint16] | None,
    *,
    icc: bytes | None,
    exif: bytes | None,
    xmp: bytes | None,
    dpi: tuple[float, float] | None,
    chunks: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """A 16-bit PNG of 1 to 4 channels; OpenCV packs the pixels, the metadata chunks are put in behind its header."""
    import cv2

    channels: NDArray[Any] = pixels if pixels.ndim == 2 else pixels[..., ::-1]
    if alpha is not None:
        channels = np.dstack([channels, alpha])
    packed = cv2.imencode(".png", np.ascontiguousarray(channels))[1].tobytes()
    more = b""
    if icc:
        more += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    for name, data in chunks:
        if name != b"sRGB" or not icc:
            more += _chunk(name, data)
    if dpi:
        per_metre = [round(value / 0.0254) for value in dpi]
        more += _chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1))
    if exif:
        more += _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    if xmp:
        more += _chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    header_end = 8 + 25
    return packed[:header_end] + more + packed[header_end:]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
