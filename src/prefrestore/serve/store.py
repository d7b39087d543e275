"""Restorations in a private folder: one sub-folder each, named by a random id; a client's file name is never a path.

restorations/ID/state.json            `schemas.Restoration`
restorations/ID/original.SUFFIX       the upload
restorations/ID/photo.SUFFIX          the result, the bytes that ``prefrestore restore`` writes
restorations/ID/photo.json            its record
restorations/ID/edited-VERSION.SUFFIX with other strengths, made when it is asked for
restorations/ID/faces/K/...           see `prefrestore.serve.facefiles`
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from prefrestore.errors import InvalidInputError
from prefrestore.files.atomic import written_beside
from prefrestore.pictures import formats
from prefrestore.serve.problems import Problem, logger
from prefrestore.serve.schemas import Input, Options, Progress, Restoration

STATE = "state.json"
LONGEST_NAME = 100
INTERRUPTED = "the service ended before this was finished: try it again"


class Store:
    """All restorations: in memory, and in ``folder``.

    Args:
        folder: made if it is not there, for this user only.
        keep_days: how long a restoration is kept.
        most: how many are kept.
        changed, removed: told of every change, in the thread that made it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_days: float,
        most: int,
        changed: Callable[[Restoration], None],
        removed: Callable[[str], None],
    ) -> None:
        self.root, self.keep, self.most = folder / "restorations", timedelta(days=keep_days), most
        self._changed, self._removed = changed, removed
        self._lock = threading.RLock()
        self._all: dict[str, Restoration] = {}
        private_folder(folder)
        private_folder(self.root)
        self._load()

    def _load(self) -> None:
        """What an earlier run left: what it had not finished says so; a folder without a state is a broken upload."""
        found = []
        for folder in self.root.iterdir():
            try:
                found.append(Restoration.model_validate_json((folder / STATE).read_bytes()))
            except (OSError, ValidationError):
                shutil.rmtree(folder, ignore_errors=True)
        for one in sorted(found, key=lambda one: one.created):
            self._all[one.id] = one
            if one.status in ("queued", "running"):
                one.status, one.message, one.interrupted = "failed", INTERRUPTED, True
                one.progress = Progress()
                self._save(one)
            elif one.work is not None and one.work.status != "failed":
                one.work.status, one.work.message = "failed", INTERRUPTED
                self._save(one)

    def __len__(self) -> int:
        return len(self._all)

    def folder(self, id: str) -> Path:
        """Where a restoration's files are."""
        return self.root / id

    def all(self) -> list[Restoration]:
        """Copies, newest first."""
        with self._lock:
            return [one.model_copy(deep=True) for one in reversed(self._all.values())]

    def get(self, id: str) -> Restoration:
        """A copy.

        Raises:
            Problem: 404, there is none.
        """
        with self._lock:
            return self._found(id).model_copy(deep=True)

    def _found(self, id: str) -> Restoration:
        if id not in self._all:
            raise Problem(404, "there is no such restoration, or it was removed")
        return self._all[id]

    def new(
        self, name: str, put: Callable[[Path], None], look: Callable[[Path], Input], options: Options
    ) -> Restoration:
        """A new restoration.

        Args:
            name: the client's name of the file.
            put: writes the upload into the file that it is given.
            look: reads the file's header; what it raises is raised, and nothing is kept.

        Raises:
            Problem: 507, so many are kept that no other fits.
        """
        with self._lock:
            if len(self._all) >= self.most:
                raise Problem(507, f"{self.most} restorations are kept, which is all that may: remove some")
        now = datetime.now(timezone.utc)
        id, shown = secrets.token_hex(16), safe_name(name)
        folder = private_folder(self.folder(id))
        try:
            path = folder / f"original{suffix_of(shown)}"
            put(path)
            one = Restoration(
                id=id,
                name=shown,
                created=stamp(now),
                expires=stamp(now + self.keep),
                options=options,
                input=look(path),
            )
            with self._lock:
                self._all[id] = one
                self._save(one)
        except BaseException:
            with self._lock:
                self._all.pop(id, None)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._changed(self.get(id))
        return self.get(id)

    @contextmanager
    def change(self, id: str, *, saved: bool = True) -> Iterator[Restoration]:
        """The restoration itself, to be changed in the block; then it is saved, and the change is told.

        Raises:
            Problem: 404, there is none (any more).
        """
        with self._lock:
            one = self._found(id)
            yield one
            if saved:
                self._save(one)
            copy = one.model_copy(deep=True)
        self._changed(copy)

    def touch(self, id: str) -> None:
        """Tell how a restoration is, unchanged itself (its place in the queue has)."""
        with self._lock:
            copy = self._all[id].model_copy(deep=True) if id in self._all else None
        if copy is not None:
            self._changed(copy)

    def _save(self, one: Restoration) -> None:
        with written_beside(self.folder(one.id) / STATE) as part:
            part.write_text(one.model_dump_json(exclude={"position"}), encoding="utf-8")

    def remove(self, id: str) -> None:
        """Forget it and delete its files; nothing happens when there is none."""
        with self._lock:
            known = self._all.pop(id, None) is not None
        if known:
            shutil.rmtree(self.folder(id), ignore_errors=True)
            self._removed(id)

    def clear_remains(self, id: str) -> None:
        """Delete what a job wrote after its restoration was removed."""
        with self._lock:
            if id not in self._all:
                shutil.rmtree(self.folder(id), ignore_errors=True)

    def expired(self) -> list[str]:
        """Ids of finished restorations that are older than they may be."""
        now = stamp(datetime.now(timezone.utc))
        with self._lock:
            return [one.id for one in self._all.values() if one.expires < now and one.status in ("done", "failed")]


def private_folder(path: Path) -> Path:
    """The folder, made for this user only; InvalidInputError when it cannot be, or cannot be made private."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix" and path.stat().st_mode & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be used as a private folder: {error.strerror or error}") from error
    return path


def safe_name(name: str) -> str:
    """A client's file name as something to show and to name downloads by: its last part, without control characters."""
    last = PurePosixPath(name.replace("\\", "/")).name
    kept = "".join(character for character in last if unicodedata.category(character)[0] != "C")
    kept = "".join("_" if character in '<>:"|?*/' else character for character in kept).strip(" .")
    stem, dot, suffix = kept.rpartition(".")
    if not dot or len(suffix) > 8:
        return kept[:LONGEST_NAME] or "photo"
    return f"{stem[:LONGEST_NAME] or 'photo'}.{suffix}"


def suffix_of(name: str) -> str:
    """The ending of a kept name, in lower case, if it is a picture's; else nothing."""
    suffix = Path(name).suffix.lower()
    return suffix if suffix in formats.READABLE_SUFFIXES else ""


def output_suffix(one: Restoration) -> str:
    """The ending of the result, as ``prefrestore restore`` gives it: the input's where it can be written."""
    return f".{one.options.format}" if one.options.format else formats.output_suffix(suffix_of(one.name))


def output_name(one: Restoration) -> str:
    """What the result is called where it is downloaded."""
    return f"{Path(one.name).stem}{output_suffix(one)}"


def stamp(when: datetime) -> str:
    """ISO 8601 in UTC, to the millisecond; texts that sort as times do."""
    return when.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sweep(store: Store, remove: Callable[[str], None]) -> None:
    """Remove what is older than it may be."""
    old = store.expired()
    for id in old:
        remove(id)
    if old:
        logger.info("removed %d old restorations", len(old))
