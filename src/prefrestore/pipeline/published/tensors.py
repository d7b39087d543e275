"""Tensors in files, read one at a time: sharded safetensors, and pickles that may hold nothing but tensors."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from prefrestore.errors import WeightsError

FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Info(NamedTuple):
    """shape, and dtype by its name in safetensors: F32, BF16, I64 ..."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Size of a tensor of a float type."""
        return torch.Size(self.shape).numel() * FLOATS[self.dtype].itemsize


class TensorSource(Protocol):
    """Where tensors come from. ``name`` is for messages; ``infos`` tells all without reading any."""

    name: str
    infos: dict[str, Info]

    def read(self, keys: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """The tensors of ``keys`` in the order in which they lie in the files, each a copy of its own."""
        ...

    def in_file_order(self, keys: Iterable[str]) -> list[str]:
        """``keys`` in the order of `read`."""
        ...


class SafetensorsFolder:
    """All ``*.safetensors`` of a folder, with or without an index.

    Raises:
        WeightsError: there are none, the index does not agree with them, or one is truncated or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self.infos: dict[str, Info] = {}
        self._files: dict[str, Path] = {}
        indices = sorted(folder.glob("*.safetensors.index.json"))
        promised = _weight_map(indices[0]) if indices else None
        files = sorted(folder.glob("*.safetensors")) if promised is None else []
        if promised is not None:
            files = sorted({folder / Path(name).name for name in promised.values()})
        if not files:
            raise WeightsError(f"{folder}: there is no safetensors file in this folder")
        for file in files:
            with _opened(file) as content:
                for key in content.keys():
                    if key in self._files:
                        raise WeightsError(f"{file}: {key} is also in {self._files[key].name}")
                    part = content.get_slice(key)
                    self.infos[key] = Info(tuple(part.get_shape()), part.get_dtype())
                    self._files[key] = file
        lost = [key for key in promised or () if key not in self._files]
        if lost:
            raise WeightsError(f"{indices[0]}: {listed(lost)} should be in the files and are not")

    def in_file_order(self, keys: Iterable[str]) -> list[str]:
        """See `TensorSource`."""
        wanted = set(keys)
        return [key for key in self.infos if key in wanted]

    def read(self, keys: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """See `TensorSource`."""
        by_file: dict[Path, list[str]] = defaultdict(list)
        for key in self.in_file_order(keys):
            by_file[self._files[key]].append(key)
        for file, inside in by_file.items():
            with _opened(file) as content:
                for key in inside:
                    yield key, content.get_tensor(key).clone()


class PickledTensors:
    """The tensors of a pickle, read with ``weights_only=True``: code in it is refused and not run.

    Args:
        file: made by ``torch.save``.
        path: keys of nested dictionaries that lead to the tensors.

    Attributes:
        beside: what else lies in the dictionary that holds the tensors' one.

    Raises:
        WeightsError: not such a file, or it holds something else than dictionaries, numbers, texts and tensors.
    """

    def __init__(self, file: Path, path: tuple[str, ...]) -> None:
        self.name = str(file)
        try:
            # Memory-mapped, so that a tensor is in memory only while it is copied.
            tree: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
        except pickle.UnpicklingError as error:
            raise WeightsError(
                f"{file}: the pickle asks for more than tensors and values; nothing in it was run ({_first(error)})"
            ) from error
        except (OSError, RuntimeError, EOFError, ValueError) as error:
            raise WeightsError(f"{file}: this file cannot be read as a checkpoint ({_first(error)})") from error
        self.beside: dict[str, Any] = {}
        for step in path:
            if not isinstance(tree, dict) or step not in tree:
                raise WeightsError(f"{file}: the checkpoint has no entry {'.'.join(path)}")
            self.beside, tree = tree, tree[step]
        if not isinstance(tree, dict) or not all(isinstance(value, Tensor) for value in tree.values()):
            raise WeightsError(f"{file}: the entry {'.'.join(path)} is not a dictionary of tensors")
        self._tensors: dict[str, Tensor] = tree
        names = {dtype: name for name, dtype in FLOATS.items()}
        self.infos = {k: Info(tuple(v.shape), names.get(v.dtype, str(v.dtype))) for k, v in tree.items()}

    def in_file_order(self, keys: Iterable[str]) -> list[str]:
        """See `TensorSource`."""
        wanted = set(keys)
        return [key for key in self.infos if key in wanted]

    def read(self, keys: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """See `TensorSource`."""
        for key in self.in_file_order(keys):
            yield key, self._tensors[key].clone(memory_format=torch.contiguous_format)


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names in one line, the first ``most`` of them and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _weight_map(index: Path) -> dict[str, str]:
    try:
        return dict(json.loads(index.read_text())["weight_map"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{index}: the index of the shards cannot be read ({error})") from error


class _opened:
    """`safe_open` with errors that name the file."""

    def __init__(self, file: Path) -> None:
        try:
            self.content = safe_open(file, framework="pt")
        except FileNotFoundError as error:
            raise WeightsError(f"{file}: this weight file is missing") from error
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{file}: this weight file is truncated or damaged ({_first(error)})") from error

    def __enter__(self) -> Any:
        return self.content.__enter__()

    def __exit__(self, *details: object) -> None:
        self.content.__exit__(*details)
