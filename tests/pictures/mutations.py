"""Damage to picture files of every format that is read, and what reading, restoring and writing make of it.

    python tests/pictures/mutations.py --files 10000

prints, for each format, how many files were read, how many were refused with a sentence, and how many did anything
else: raised, hung, or came out with a changed pixel although nothing was restored. Only the last three are faults.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from prefrestore.errors import PrefRestoreError
from prefrestore.faces.detect import FaceDetector
from prefrestore.pictures.encode import write_photo
from prefrestore.pictures.formats import FORMATS, HAS_QUALITY, format_of, has_jpeg_xl, output_suffix, register_readers
from prefrestore.pictures.photo import Photo
from prefrestore.pictures.read import page_numbers, read_photo
from prefrestore.restoration.photo import restore_photo

SECONDS = 20
"""Of the processor; a file that takes longer hangs."""
_XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6" exif:PixelXDimension="40"/></x:xmpmeta>'


class NoModel:
    """Never called: the detector finds no face in noise."""

    face_size = 64

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a face was found in noise")


def seeds() -> dict[str, list[bytes]]:
    """Whole small files of every format that is read here and can be made here: several modes, all metadata."""
    register_readers()
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 4), dtype=np.uint8)
    colour = Image.fromarray(noise[..., :3])
    clear = Image.fromarray(noise, "RGBA")
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x011A] = "A maker", 6, 300.0
    exif.get_ifd(0x8769).update({0x9003: "1931:05:06 07:08:09", 0xA002: 56, 0xA003: 40})
    exif.get_ifd(0x8825)[1] = "N"
    said: dict[str, Any] = {"exif": exif.tobytes(), "dpi": (300, 150)}
    said["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    texts = PngInfo()
    texts.add_text("Title", "A wedding")
    texts.add_itxt("XML:com.adobe.xmp", _XMP.decode())
    grey, bits, palette = colour.convert("L"), colour.convert("1"), colour.convert("P")
    inks = colour.convert("CMYK")
    deep = (noise[..., :3].astype(np.uint16) * 257, noise[..., 3].astype(np.uint16) * 257)

    def saved(kind: str, *images: Image.Image, **options: Any) -> list[bytes]:
        made = []
        for image in images:
            content = io.BytesIO()
            image.save(content, format=kind, **options)
            made.append(content.getvalue())
        return made

    def written(kind: str, photo: Photo) -> list[bytes]:
        content = io.BytesIO()
        write_photo(photo, content, kind=kind)
        return [content.getvalue()]

    pages = saved("TIFF", colour, save_all=True, append_images=[grey, inks])
    found = {
        "jpg": saved("JPEG", colour, grey, inks, xmp=_XMP, comment=b"a comment", **said)
        + saved("JPEG", colour, progressive=True),
        "png": saved("PNG", colour, clear, grey, bits, palette, grey.convert("LA"), pnginfo=texts, **said)
        + written("png", Photo(pixels=deep[0], alpha=deep[1])),
        "tif": saved("TIFF", colour, clear, grey, bits, inks, compression="tiff_lzw", dpi=(300, 300))
        + saved("TIFF", colour, exif=said["exif"], icc_profile=said["icc_profile"])
        + written("tif", Photo(pixels=deep[0]))
        + written("tif", Photo(pixels=noise[..., 0].astype(np.uint16), exif=said["exif"]))
        + pages,
        "webp": saved("WEBP", colour, clear, xmp=_XMP, **said) + saved("WEBP", colour, lossless=True, **said),
        "avif": saved("AVIF", colour, clear, xmp=_XMP, speed=10, exif=said["exif"]),
        "heic": [heic(colour, exif=said["exif"]), heic(clear, exif=said["exif"])],
        "gif": saved("GIF", palette, grey),
        "bmp": saved("BMP", colour, grey, palette, bits),
        "tga": saved("TGA", colour, clear, grey, compression="tga_rle"),
        "ppm": saved("PPM", colour, grey, bits),
        "jp2": saved("JPEG2000", colour, clear, grey),
        "mpo": saved("MPO", colour, save_all=True, append_images=[colour]),
        "ico": saved("ICO", clear),
        "icns": [_icns(saved("PNG", clear.resize((128, 128)))[0])],
        "pcx": saved("PCX", colour, grey, palette),
        "sgi": saved("SGI", colour, grey),
        "dds": saved("DDS", colour, clear),
        "qoi": saved("QOI", colour, clear),
        "psd": [_psd(noise[..., :3])],
        "ras": [_sun(noise[..., :3])],
    }
    if has_jpeg_xl():
        found["jxl"] = saved("JXL", colour, clear, lossless=True)
    return found


def heic(image: Image.Image, **options: Any) -> bytes:
    """A HEIC file; the package itself only reads them, so another one writes them for the tests."""
    import pillow_heif

    content = io.BytesIO()
    pillow_heif.from_pillow(image).save(content, quality=90, **options)
    return content.getvalue()


def _icns(png: bytes) -> bytes:
    """An icon by hand: one entry, 128 x 128 px as PNG."""
    entry = b"ic07" + (len(png) + 8).to_bytes(4, "big") + png
    return b"icns" + (len(entry) + 8).to_bytes(4, "big") + entry


def _psd(pixels: NDArray[np.uint8]) -> bytes:
    """Photoshop by hand: header, no colour table, no resources, no layers, raw planes."""
    height, width = pixels.shape[:2]
    head = b"8BPS\0\1" + bytes(6) + b"\0\3" + height.to_bytes(4, "big") + width.to_bytes(4, "big") + b"\0\x08\0\3"
    return head + bytes(12) + b"\0\0" + pixels.transpose(2, 0, 1).tobytes()


def _sun(pixels: NDArray[np.uint8]) -> bytes:
    """Sun raster by hand: old format, 24 bits, no colour table."""
    height, width = pixels.shape[:2]
    numbers = (0x59A66A95, width, height, 24, pixels.nbytes, 1, 0, 0)
    return b"".join(number.to_bytes(4, "big") for number in numbers) + pixels.tobytes()


def mutate(content: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """One to eight wounds: flipped bits, wild bytes and numbers, cuts, doubled and lost pieces, pieces of another
    file. Half of them fall into the first 512 bytes, where headers are.
    """
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        if len(data) < 2:
            break
        reach = min(len(data), 512) if rng.random() < 0.5 else len(data)
        place = int(rng.integers(reach))
        length = int(rng.integers(1, 64))
        wound = int(rng.integers(7))
        if wound == 0:
            data[place] ^= 1 << int(rng.integers(8))
        elif wound == 1:
            data[place] = int(rng.integers(256))
        elif wound == 2:
            numbers = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
            data[place : place + 4] = numbers[int(rng.integers(len(numbers)))].to_bytes(4, ("big", "little")[place % 2])
        elif wound == 3:
            del data[place:]
        elif wound == 4:
            data[place:place] = data[place : place + length]
        elif wound == 5:
            del data[place : place + length]
        else:
            data[place : place + length] = other[place : place + length]
    return bytes(data)


class Hung(Exception):
    """A file took longer than SECONDS."""


@contextmanager
def limited() -> Iterator[None]:
    def alarmed(number: int, frame: FrameType | None) -> None:
        raise Hung

    before = signal.signal(signal.SIGPROF, alarmed)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def verdict(path: Path, output: Path, detector: FaceDetector | None) -> str:
    """``read``, ``refused``, or the fault."""
    try:
        with limited():
            for page in page_numbers(path):
                photo = read_photo(path, page=page)
                result = restore_photo(photo, NoModel(), detector=detector) if detector is not None else None
                after = photo if result is None else result.photo
                if not np.array_equal(after.pixels, photo.pixels):
                    return "pixel changed in memory"
                write_photo(after, output)
                if format_of(output) not in HAS_QUALITY and not _same(after, read_photo(output)):
                    return "pixel changed in the file"
                output.unlink()
    except PrefRestoreError as error:
        return "refused" if "\n" not in str(error) else "refused in several lines"
    except Hung:
        return "hung"
    except Exception as error:  # noqa: BLE001  whatever it is, it is counted
        return f"raised {type(error).__name__}: {error}"[:160]
    return "read"


def _same(before: Photo, after: Photo) -> bool:
    """Equal pixels and alpha; inks are compared as inks, and what was 8 bits of grey may come back as such."""
    one, two = before.pixels, after.pixels
    if before.alpha is not None and after.alpha is None:
        return True  # laid on white, with a note
    if one.dtype != two.dtype:
        return one.dtype == np.uint16  # rounded, with a note
    if one.ndim != two.ndim:
        one, two = (each[..., None] if each.ndim == 2 else each for each in (one, two))
    return bool((one == two).all())


def run(
    files: int, seed: int, folder: Path, *, restore: bool = True, tell: Callable[[str], None] | None = None
) -> dict[str, Counter[str]]:
    """Mutate ``files`` files, each format in turn, and count the verdicts of each; reproducible by the seed."""
    rng = np.random.default_rng(seed)
    whole = seeds()
    everything = [content for contents in whole.values() for content in contents]
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in whole}
    detector = FaceDetector() if restore else None
    kinds = list(whole)
    if detector is not None:
        # What is imported on the way takes longer than a file may.
        restore_photo(whole["png"][0], NoModel(), detector=detector)
    for number in range(files):
        kind = kinds[number % len(kinds)]
        source = whole[kind][int(rng.integers(len(whole[kind])))]
        damaged = mutate(source, rng, everything[int(rng.integers(len(everything)))])
        path = folder / f"x.{kind}"
        path.write_bytes(damaged)
        ending = output_suffix(path.suffix) if number % 3 else list(FORMATS)[number % len(FORMATS)]
        said = verdict(path, folder / f"out{ending}", detector)
        counts[kind][said] += 1
        if tell is not None and said not in ("read", "refused"):
            tell(f"{kind} file {number} -> {ending}: {said}")
            (folder / f"fault-{number}.{kind}").write_bytes(damaged)
    return counts


def say(text: str, stream: TextIO = sys.stdout) -> None:
    stream.write(f"{text}\n")
    stream.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files that show faults")
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        counts = run(arguments.files, arguments.seed, folder, tell=lambda text: say(text, sys.stderr))
    total: Counter[str] = sum(counts.values(), Counter())
    say(f"{'format':8}{'files':>8}{'read':>8}{'refused':>9}{'faults':>8}")
    for kind, row in [*counts.items(), ("all", total)]:
        faults = row.total() - row["read"] - row["refused"]
        say(f"{kind:8}{row.total():8}{row['read']:8}{row['refused']:9}{faults:8}")
    say(f"{time.monotonic() - started:.0f} s, seed {arguments.seed}")
    sys.exit(1 if total.total() > total["read"] + total["refused"] else 0)


if __name__ == "__main__":
    main()
