"""Files that are either whole or not there: written beside their place and renamed into it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefrestore.errors import ImageWriteError

# What the system takes away from a new file's rights. It can only be read by setting it, for every thread at once; so
# that is done once, while this module is imported, and not at each file.
_MASK = os.umask(0o077)
os.umask(_MASK)


# Unfinished files, for a process that ends at once.
_PARTS: set[Path] = set()


def remove_parts() -> None:
    """Delete every file that is being written; only before the process ends."""
    for part in tuple(_PARTS):
        part.unlink(missing_ok=True)


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Gives a temporary path in the folder of `path` (which is made) and moves it to `path` when the block
    succeeds.

    When the block raises, nothing is left behind and an older `path` is untouched. A failure of the file
    system (no space, no permission, a folder in the way) becomes ImageWriteError naming `path`.
    """
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Few letters of the name: it may have as many bytes as a name can have.
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:16]}.", suffix=f".part{path.suffix}", dir=path.parent)
        os.close(handle)
        part = Path(name)
        _PARTS.add(part)
        # mkstemp makes the file private; the finished one gets the rights that a plain open() would have
        # given.
        part.chmod(0o666 & ~_MASK)
        yield part
        os.replace(part, path)
        _PARTS.discard(part)
        part = None
    except UnicodeEncodeError as error:
        raise ImageWriteError(f"cannot write {path}: the file system has no such letters") from error
    except OSError as error:
        raise ImageWriteError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
            _PARTS.discard(part)
