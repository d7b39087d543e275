"""From what the user names (files, globs, folders) to what is read and what is written; opens no picture."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prefrestore.errors import InvalidInputError

# What is taken out of a folder. A file that is named itself is tried whatever its name.
PICTURE_SUFFIXES = frozenset(
    {
        ".avif",
        ".bmp",
        ".gif",
        ".jfif",
        ".jp2",
        ".jpeg",
        ".jpg",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tga",
        ".tif",
    }
    | {".tiff", ".webp"}
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One picture, and the places of everything that is written about it, distinct over a plan."""

    source: Path
    output: Path
    record: Path
    compare: Path
    crops: Path
    """A folder, for the faces of this picture."""
    uncertainty: Path
    caption: str | None = None
    """What this picture shows; None: what the options say for all."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """tasks: in the order in which the inputs were named. failed: (what was named, one sentence)."""

    tasks: tuple[Task, ...]
    failed: tuple[tuple[str, str], ...]


def make_plan(inputs: Sequence[str | Path], output: Path, *, kept_suffixes: Iterable[str]) -> Plan:
    """Decide what is read and written.

    Args:
        inputs: files, glob patterns (``**`` crosses folders) and folders, which are walked; what lies in a
            folder keeps its place below `output`, anything else is written into `output` itself.
        kept_suffixes: name endings (lower case, with the dot) that can be written; others become ``.png``.

    An output keeps its input's name. Where two would get the same one (also on file systems that ignore
    case), the later gets ``-2``. The record is ``NAME.json``, or ``NAME.SUFFIX.json`` for pictures that
    differ in their suffix only. What cannot be used (not there, an empty folder, an output that would replace
    an input) is in `failed`. Raises InvalidInputError if `output` is a file.
    """
    if output.exists() and not output.is_dir():
        raise InvalidInputError(f"the output {output} is a file, a folder is needed")
    found, failed = _find(inputs, output)
    kept = frozenset(kept_suffixes)
    natural = [
        output / (place if place.suffix.lower() in kept else place.with_name(f"{place.stem}.png")) for _, place in found
    ]
    # Every name that some picture has of itself is taken before a second picture of one name gets a number.
    taken = {_key(path) for path in natural}
    given: set[str] = set()
    wanted = []
    for (source, _), path in zip(found, natural, strict=True):
        if _key(path) in given:
            path = _free(path.parent, path.stem, path.suffix, taken)
        given.add(_key(path))
        wanted.append((source, path))
    sources = {os.path.realpath(source) for source, _ in found}
    stems = Counter(_key(path.with_suffix("")) for _, path in wanted)
    tasks = []
    for source, path in wanted:
        if os.path.realpath(path) in sources:
            failed.append((str(source), f"{source}: the output would replace an input, name another folder"))
            continue
        name = path.stem if stems[_key(path.with_suffix(""))] == 1 else path.name
        tasks.append(
            Task(
                source=source,
                output=path,
                record=_free(path.parent, name, ".json", taken),
                compare=_free(path.parent, f"{name}_compare", ".png", taken),
                crops=_free(path.parent, f"{name}_faces", "", taken),
                uncertainty=_free(path.parent, f"{name}.uncertainty", ".png", taken),
            )
        )
    return Plan(tasks=tuple(tasks), failed=tuple(failed))


def _find(inputs: Sequence[str | Path], output: Path) -> tuple[list[tuple[Path, Path]], list[tuple[str, str]]]:
    """(source, place relative to the output) of every picture once, and what could not be used."""
    found: dict[str, tuple[Path, Path]] = {}
    failed: list[tuple[str, str]] = []
    inside = output.resolve()
    for named in inputs:
        path = Path(named)
        if path.is_dir():
            before = len(failed)
            pictures = _walk(path, failed)
            pictures = [picture for picture in pictures if not picture.resolve().is_relative_to(inside)]
            if not pictures and len(failed) == before:
                failed.append((str(named), f"{named} holds no picture"))
            places = [(picture, picture.relative_to(path)) for picture in pictures]
        # A name with brackets may be a file's own: only what does not exist is read as a pattern.
        elif not os.path.lexists(path) and glob.has_magic(str(named)):
            matches = [Path(match) for match in sorted(glob.glob(str(named), recursive=True))]
            places = [(match, Path(match.name)) for match in matches if match.is_file()]
            if not places:
                failed.append((str(named), f"nothing matches {named}"))
        elif os.path.lexists(path):
            places = [(path, Path(path.name))]
        else:
            failed.append((str(named), f"there is no file {named}"))
            continue
        for source, place in places:
            found.setdefault(os.path.realpath(source), (source, place))
    return list(found.values()), failed


def _walk(folder: Path, failed: list[tuple[str, str]]) -> list[Path]:
    """Pictures in `folder` and below, sorted, hidden ones left out; folders that cannot be read go to
    `failed`.
    """

    def unreadable(error: OSError) -> None:
        failed.append((str(error.filename), f"cannot read {error.filename}: {error.strerror}"))

    pictures = []
    for parent, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        pictures += [
            Path(parent, name)
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES
        ]
    return sorted(pictures)


def _free(folder: Path, stem: str, suffix: str, taken: set[str]) -> Path:
    """`folder`/`stem``suffix`, or with -2, -3, ... what is not taken yet; takes it."""
    number, path = 1, folder / f"{stem}{suffix}"
    while _key(path) in taken:
        number += 1
        path = folder / f"{stem}-{number}{suffix}"
    taken.add(_key(path))
    return path


def _key(path: Path) -> str:
    return str(path).casefold()
