"""From what the user names (files, globs, folders) to what is read and what is written; opens no picture."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prefrestore.errors import InvalidInputError
from prefrestore.pictures.formats import (
    JPEG_XL_HINT,
    READABLE_SUFFIXES,
    WRITABLE_SUFFIXES,
    is_unread_picture,
    output_suffix,
)
from prefrestore.restoration.earlier import EarlierFiles, earlier_files


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
    """tasks: in the order in which the inputs were named. failed: (what was named, one sentence). notes: one sentence
    for each kind of picture that lies in a folder and is left out.
    """

    tasks: tuple[Task, ...]
    failed: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


def make_plan(inputs: Sequence[str | Path], output: Path, *, kind: str | None = None, name_suffix: str = "") -> Plan:
    """Decide what is read and written.

    Args:
        inputs: files, glob patterns (``**`` crosses folders) and folders, which are walked; what lies in a
            folder keeps its place below `output`, anything else is written into `output` itself. Of a folder, the
            files that earlier runs wrote beside their pictures are left out, and what they wrote into `output`.
        output: a folder; or, for inputs that lead to one picture, a name with an ending that can be written.
        kind: the outputs' ending (``jpg``); None: the input's own where it can be written, else jpg or png.
        name_suffix: put behind the outputs' names, before the ending.

    An output keeps its input's name. Where two would get the same one (also on file systems that ignore
    case), the later gets ``-2``. The record is ``NAME.json``, or ``NAME.SUFFIX.json`` for pictures that
    differ in their suffix only. What cannot be used (not there, an empty folder, an output that would replace
    an input) is in `failed`. Raises InvalidInputError if an input has no name, `output` cannot be a folder, or names
    one file for several pictures.
    """
    if any(str(named) == "" for named in inputs):
        raise InvalidInputError("an input has an empty name; the current folder is '.'")
    one = output.suffix.lower() in WRITABLE_SUFFIXES and not output.is_dir()
    if output.exists() and not output.is_dir() and not one:
        raise InvalidInputError(f"the output {output} is a file, a folder is needed")
    folder = output.parent if one else output
    search = _Search(folder if not one else None)
    for named in inputs:
        search.add(named)
    found, failed = list(search.found.values()), search.failed
    if one and (name_suffix or kind not in (None, output.suffix[1:])):
        raise InvalidInputError(f"the output {output} has its whole name: no --suffix and no other --format go with it")
    if one and len(found) > 1:
        raise InvalidInputError(f"the output {output} is one file, but the inputs are {len(found)} pictures")
    natural = [output] if one and found else [folder / _renamed(place, kind, name_suffix) for _, place in found]
    # Every name that some picture has of itself is taken before a second picture of one name gets a number.
    names = _Names(natural)
    given: set[str] = set()
    wanted = []
    for (source, _), path in zip(found, natural, strict=True):
        if _key(path) in given:
            path = names.free(path.parent, path.stem, path.suffix)
        given.add(_key(path))
        wanted.append((source, path))
    sources = {os.path.realpath(source) for source, _ in found}
    stems = Counter(_key(path.with_suffix("")) for _, path in wanted)
    tasks = []
    for source, path in wanted:
        if os.path.realpath(path) in sources:
            whose = "itself" if os.path.realpath(path) == os.path.realpath(source) else "another input"
            advice = "name another output folder, or --suffix _restored"
            failed.append((str(source), f"{source}: the output would replace {whose}: {advice}"))
            continue
        name = path.stem if stems[_key(path.with_suffix(""))] == 1 else path.name
        tasks.append(
            Task(
                source=source,
                output=path,
                record=names.free(path.parent, name, ".json"),
                compare=names.free(path.parent, f"{name}_compare", ".png"),
                crops=names.free(path.parent, f"{name}_faces", ""),
                uncertainty=names.free(path.parent, f"{name}.uncertainty", ".png"),
            )
        )
    return Plan(tasks=tuple(tasks), failed=tuple(failed), notes=tuple(search.notes))


def _renamed(place: Path, kind: str | None, name_suffix: str) -> Path:
    ending = f".{kind}" if kind is not None else output_suffix(place.suffix)
    return place.with_name(f"{place.stem}{name_suffix}{ending}")


@dataclass
class _Search:
    """What the inputs lead to. output: the folder whose earlier outputs are left out.

    found: real path -> (source, place relative to the output). failed: (what was named, one sentence).
    """

    output: Path | None
    found: dict[str, tuple[Path, Path]] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, named: str | Path) -> None:
        path = Path(named)
        if path.is_dir():
            places = [(picture, picture.relative_to(path)) for picture in self._pictures_in(path)]
        # A name with brackets may be a file's own: only what does not exist is read as a pattern.
        elif not os.path.lexists(path) and glob.has_magic(str(named)):
            matches = [Path(match) for match in sorted(glob.glob(str(named), recursive=True))]
            places = [(match, Path(match.name)) for match in matches if match.is_file()]
            if not places:
                self.failed.append((str(named), f"nothing matches {named}"))
        elif os.path.lexists(path):
            places = [(path, Path(path.name))]
        else:
            self.failed.append((str(named), f"there is no file {named}"))
            return
        for source, place in places:
            self.found.setdefault(os.path.realpath(source), (source, place))

    def _pictures_in(self, folder: Path) -> list[Path]:
        """Pictures in `folder` and below, sorted, without hidden ones and earlier outputs."""
        before = len(self.failed)
        pictures: list[Path] = []
        unread: Counter[str] = Counter()
        earlier = 0
        for parent, folders, names in os.walk(folder, onerror=self._unreadable):
            files = earlier_files(Path(parent, name) for name in names if name.lower().endswith(".json"))
            folders[:] = [
                name for name in folders if not name.startswith(".") and Path(parent, name) not in files.beside
            ]
            for name in names:
                path = Path(parent, name)
                if name.startswith("."):
                    continue
                if is_unread_picture(name):
                    unread[path.suffix.lower()] += 1
                elif path.suffix.lower() in READABLE_SUFFIXES:
                    if self._is_earlier(path, files):
                        earlier += 1
                    elif path.exists() and not path.is_file():
                        # Nobody may ever write into a pipe: whoever reads it waits without end.
                        self.failed.append((str(path), f"{path} is no regular file"))
                    else:
                        pictures.append(path)
        if unread:
            kinds = ", ".join(f"{number} {suffix}" for suffix, number in sorted(unread.items()))
            hint = f" ({JPEG_XL_HINT})" if ".jxl" in unread else ""
            self.notes.append(f"{folder}: left out pictures of kinds that are not read here: {kinds}{hint}")
        if earlier:
            self.notes.append(f"{folder}: pictures that earlier runs wrote, left out: {earlier}")
        if not pictures and len(self.failed) == before:
            self.failed.append((str(folder), f"{folder} holds no picture that is read here"))
        return sorted(pictures)

    def _is_earlier(self, path: Path, files: EarlierFiles) -> bool:
        if path in files.beside:
            return True
        within = self.output is not None and path.resolve().is_relative_to(self.output.resolve())
        return within and path in files.outputs

    def _unreadable(self, error: OSError) -> None:
        self.failed.append((str(error.filename), f"cannot read {error.filename}: {error.strerror}"))


class _Names:
    """The names that are given away, whatever their case, and where the search for a free number goes on."""

    def __init__(self, taken: Iterable[Path]) -> None:
        self._taken = {_key(path) for path in taken}
        self._last: dict[tuple[str, str], int] = {}

    def free(self, folder: Path, stem: str, suffix: str) -> Path:
        """`folder`/`stem``suffix`, or with -2, -3, ... what is not taken yet; takes it."""
        wanted = (_key(folder / stem), suffix.casefold())
        # No name is ever given back, so all below the last number are taken still.
        number = self._last.get(wanted, 1)
        while _key(path := folder / (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")) in self._taken:
            number += 1
        self._last[wanted] = number
        self._taken.add(_key(path))
        return path


def _key(path: Path) -> str:
    return str(path).casefold()
