"""One shard: a webdataset tar or a parquet file whose samples can be read by row."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from prefrestore.errors import ImageReadError, InvalidInputError, MissingDependencyError
from prefrestore.files import cache
from prefrestore.files.atomic import written_beside

IMAGES = ("jpg", "jpeg", "png", "webp")
CAPTIONS = ("caption", "text", "txt")
_TEXT, _JSON = 0, 1
_KEPT_GROUPS = 8


class Shard(Protocol):
    """Samples in a file."""

    path: Path

    def __len__(self) -> int: ...

    def read(self, row: int) -> tuple[bytes, str | None]:
        """The encoded picture and the caption; ImageReadError when this sample is broken."""

    def captions(self, most: int) -> list[str | None]:
        """The captions of the first samples, ``most`` of them or fewer; broken ones are None."""


def shard_files(root: Path) -> list[Path]:
    """The shards that ``root`` is or holds directly; none for any other folder or file."""
    suffixes = (".tar", ".parquet")
    if root.is_dir():
        return sorted(file for file in root.iterdir() if file.suffix in suffixes and file.is_file())
    return [root] if root.suffix in suffixes else []


def open_shard(path: Path) -> Shard:
    """The reader of a file, by its suffix."""
    if not path.is_file():
        raise InvalidInputError(f"there is no shard {path}")
    return TarShard(path) if path.suffix == ".tar" else ParquetShard(path)


def _caption_of(text: bytes, kind: int) -> str | None:
    if kind == _TEXT:
        return text.decode("utf-8").strip() or None
    value = json.loads(text)
    if isinstance(value, dict):
        value = next((value[name] for name in CAPTIONS if value.get(name)), None)
    if value is not None and not isinstance(value, str):
        raise ValueError("its caption is no text")
    return value or None


class TarShard:
    """``key.jpg`` (or .png, .webp) with ``key.txt`` or ``key.json``, as webdataset writes them, uncompressed.

    Where each file lies is found once, from the headers, and kept in the cache folder; pictures are never unpacked.
    """

    def __init__(self, path: Path, cache_dir: Path | None = None) -> None:
        self.path = path
        state = path.stat()
        key = hashlib.sha256(f"{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns} 1".encode()).hexdigest()[:20]
        cached = (cache_dir or cache.cache_dir()) / f"shard-{key}.npy"
        if cached.exists():
            # Rows of offset and bytes of the picture, offset, bytes and kind of the caption (-1: none).
            self.index = np.load(cached)
            return
        self.index = self._scan()
        with written_beside(cached) as part:
            np.save(part, self.index)

    def _scan(self) -> npt.NDArray[np.int64]:
        pictures: dict[str, tuple[int, int]] = {}
        captions: dict[str, tuple[int, int, int]] = {}
        try:
            with tarfile.open(self.path, "r:") as archive:
                for member in archive:
                    folder, _, name = member.name.rpartition("/")
                    key, _, suffix = name.partition(".")
                    key, suffix = f"{folder}/{key}", suffix.lower()
                    if not member.isreg() or member.issparse():
                        continue
                    if suffix in IMAGES:
                        if key in pictures:
                            raise InvalidInputError(f"{self.path} holds several pictures named {key.lstrip('/')}")
                        pictures[key] = (member.offset_data, member.size)
                    elif suffix in ("txt", "json") and (suffix == "txt" or key not in captions):
                        captions[key] = (member.offset_data, member.size, _TEXT if suffix == "txt" else _JSON)
        except (tarfile.TarError, OSError) as error:
            raise ImageReadError(f"cannot read the shard {self.path}: {error}") from error
        rows = [(*place, *captions.get(key, (0, 0, -1))) for key, place in pictures.items()]
        return np.array(rows, np.int64).reshape(-1, 5)

    def __len__(self) -> int:
        return len(self.index)

    def _bytes(self, offset: int, size: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            raise ImageReadError(f"cannot read {self.path}: {error}") from error

    def _caption(self, row: int) -> str | None:
        _, _, offset, size, kind = map(int, self.index[row])
        if kind < 0:
            return None
        try:
            return _caption_of(self._bytes(offset, size), kind)
        except ValueError as error:
            raise ImageReadError(f"the caption cannot be read: {error}") from error

    def read(self, row: int) -> tuple[bytes, str | None]:
        """See `Shard.read`."""
        return self._bytes(int(self.index[row, 0]), int(self.index[row, 1])), self._caption(row)

    def captions(self, most: int) -> list[str | None]:
        """See `Shard.captions`."""
        found: list[str | None] = []
        for row in range(min(most, len(self))):
            try:
                found.append(self._caption(row))
            except ImageReadError:
                found.append(None)
        return found


class ParquetShard:
    """A column of encoded pictures (``image``, ``jpg`` ...; bytes, or a struct with ``bytes``) and one of captions.

    Row groups are read as they are needed, and the last few are kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        schema, metadata = self._file.schema_arrow, self._file.metadata
        self.image = next((name for name in ("image", *IMAGES) if name in schema.names), None)
        if self.image is None:
            raise InvalidInputError(f"{path} has no column 'image' (or jpg, png, webp): {', '.join(schema.names)}")
        self.caption = next((name for name in CAPTIONS if name in schema.names), None)
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
        self._groups: OrderedDict[int, Any] = OrderedDict()

    @cached_property
    def _file(self) -> Any:
        try:
            from pyarrow import ArrowException, parquet
        except ImportError as error:
            raise MissingDependencyError("parquet shards need pyarrow: pip install 'prefrestore[shards]'") from error
        try:
            return parquet.ParquetFile(self.path)
        except (ArrowException, OSError) as error:
            raise ImageReadError(f"cannot read the shard {self.path}: {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes: each opens the file itself."""
        return {key: value for key, value in vars(self).items() if key != "_file"} | {"_groups": OrderedDict()}

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _columns(self, group: int, *names: str | None) -> Any:
        try:
            # Threads of its own would not survive the fork of a data loader.
            return self._file.read_row_group(group, [name for name in names if name], use_threads=False)
        except OSError as error:
            raise ImageReadError(f"cannot read {self.path}: {error}") from error

    def _group(self, group: int) -> Any:
        if group not in self._groups:
            self._groups[group] = self._columns(group, self.image, self.caption)
            while len(self._groups) > _KEPT_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(group)
        return self._groups[group]

    def read(self, row: int) -> tuple[bytes, str | None]:
        """See `Shard.read`."""
        group = int(np.searchsorted(self.starts, row, side="right")) - 1
        table, place = self._group(group), row - int(self.starts[group])
        data = table[self.image][place].as_py()
        data = data.get("bytes") if isinstance(data, dict) else data
        caption = table[self.caption][place].as_py() if self.caption else None
        if not isinstance(data, bytes):
            raise ImageReadError("there is no picture in it")
        if caption is not None and not isinstance(caption, str):
            raise ImageReadError("its caption is no text")
        return data, (caption or "").strip() or None

    def captions(self, most: int) -> list[str | None]:
        """See `Shard.captions`."""
        found: list[str | None] = []
        for group in range(len(self.starts) - 1):
            if self.caption is None or len(found) >= most:
                break
            texts = self._columns(group, self.caption)[self.caption].to_pylist()
            found += [text if isinstance(text, str) else None for text in texts]
        return found[: max(most, 0)]
