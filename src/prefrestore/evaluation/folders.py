"""Faces to measure, found in folders: what belongs together has one name, whatever the file's suffix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefrestore.errors import InvalidInputError
from prefrestore.pictures.formats import READABLE_SUFFIXES


@dataclass(frozen=True, kw_only=True)
class MeasuredFace:
    """One face: the picture to measure, or to restore first, and what it is compared with."""

    name: str
    lq: Path | None = None
    restored: Path | None = None
    reference: Path | None = None


@dataclass(frozen=True, kw_only=True)
class MeasuredSet:
    """Faces under one title; ``aside``: (name, reason) of those that cannot be measured."""

    title: str
    faces: tuple[MeasuredFace, ...]
    aside: tuple[tuple[str, str], ...] = ()
    folders: dict[str, str]

    @property
    def has_references(self) -> bool:
        """Whether the faces are pairs."""
        return "reference" in self.folders


def pictures_in(folder: Path) -> dict[str, Path]:
    """The pictures below a folder by their path in it without the suffix, sorted; hidden ones left out.

    Raises:
        InvalidInputError: no such folder, no picture in it, or two pictures of one name.
    """
    if not folder.is_dir():
        raise InvalidInputError(f"{folder} is not a folder.")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if path.suffix.lower() not in READABLE_SUFFIXES or any(part.startswith(".") for part in place.parts):
            continue
        name = place.with_suffix("").as_posix()
        if name in found:
            raise InvalidInputError(f"{found[name]} and {path} have one name: which of them is meant?")
        found[name] = path
    if not found:
        raise InvalidInputError(f"{folder} holds no picture.")
    return found


def face_set(
    title: str,
    *,
    lq: Path | None = None,
    restored: Path | None = None,
    reference: Path | None = None,
    limit: int | None = None,
) -> MeasuredSet:
    """The faces of `restored` (or, without it, of `lq`, to be restored), with their references.

    A name that one folder has and another lacks is set aside. `limit` takes the first of a fixed shuffle, so that a
    smaller sample lies inside a larger one.

    Raises:
        InvalidInputError: neither `lq` nor `restored`, an unusable folder, or no face that can be measured.
    """
    import numpy as np

    given = {"lq": lq, "restored": restored, "reference": reference}
    folders = {role: folder for role, folder in given.items() if folder is not None}
    measured = restored or lq
    if measured is None:
        raise InvalidInputError("name a folder of restored faces, or of degraded ones that are to be restored.")
    pictures = {role: pictures_in(folder) for role, folder in folders.items()}
    every = sorted(set().union(*pictures.values()))
    whole, aside = [], []
    for name in every:
        lacking = [str(folders[role]) for role in folders if name not in pictures[role]]
        if lacking:
            aside.append((name, f"there is no such picture in {' or '.join(lacking)}"))
        else:
            whole.append(name)
    if not whole:
        raise InvalidInputError(f"{measured} has no picture with a counterpart in the other folders.")
    order = np.random.default_rng(0).permutation(len(whole))[:limit]
    faces = tuple(MeasuredFace(name=whole[i], **{role: pictures[role][whole[i]] for role in folders}) for i in order)
    return MeasuredSet(
        title=title, faces=faces, aside=tuple(aside), folders={role: str(folder) for role, folder in folders.items()}
    )
