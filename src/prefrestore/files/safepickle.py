"""Read a pickle of nested dictionaries of numpy arrays without ever running what the pickle asks for.

The three names that numpy's own array pickles mention are answered by the inert stand-ins below, every other
name is refused, so that no foreign callable can be reached. What cannot be expressed by these stand-ins
(object arrays, instances of classes, functions) is an error.
"""

import io
import math
import pickle
from typing import Any

import numpy as np

from prefrestore.errors import WeightsError

_MALFORMED = (ValueError, TypeError, AttributeError)
_NUMBER_CODES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"})


class _Marker:
    """Stands for the class `numpy.ndarray`, which a pickle only passes as an argument."""


class _Dtype:
    """Stands for `numpy.dtype`: a plain number type, given as kind and size, then its byte order."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if code not in _NUMBER_CODES:
            raise pickle.UnpicklingError(f"array type {code!r} is not a plain number")
        self.code = code
        self.order = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]
        if self.order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"byte order {self.order!r} is unknown")


class _Array:
    """Stands for an array under construction; `value` is filled from the raw bytes."""

    value: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes):
            raise pickle.UnpicklingError("an array holds something else than numbers")
        numbers = np.frombuffer(raw, dtype=np.dtype(dtype.order + dtype.code))
        if numbers.size != math.prod(shape):
            raise pickle.UnpicklingError(f"an array of shape {shape} holds {numbers.size} numbers")
        self.value = numbers.reshape(shape, order="F" if fortran else "C").copy()


def _reconstruct(kind: type, shape: tuple[int, ...], code: bytes) -> _Array:
    return _Array()


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Marker,
    ("numpy", "dtype"): _Dtype,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not part of an array") from None


def _flatten(tree: object, prefix: str, into: dict[str, np.ndarray]) -> None:
    if isinstance(tree, _Array):
        into[prefix] = tree.value
    elif isinstance(tree, dict):
        for key, branch in tree.items():
            _flatten(branch, f"{prefix}/{key}" if prefix else str(key), into)
    else:
        raise pickle.UnpicklingError(f"{prefix!r} is neither a dictionary nor an array")


def load_arrays(data: bytes, name: str) -> dict[str, np.ndarray]:
    """The arrays of a pickle of nested dictionaries, by their path: `{"a": {"b": array}}` gives `{"a/b":
    array}`.

    Args:
        data: the pickle's bytes.
        name: the file's name, for the message.

    Raises:
        WeightsError: the pickle is damaged or holds anything but dictionaries of number arrays.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        _flatten(_ArraysOnly(io.BytesIO(data)).load(), "", arrays)
    except (pickle.UnpicklingError, EOFError, ArithmeticError, LookupError, *_MALFORMED) as error:
        raise WeightsError(f"{name} is not a pickle of plain number arrays: {error}.") from error
    return arrays
