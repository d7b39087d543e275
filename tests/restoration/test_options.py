"""What a user may choose."""

from typing import Any

import pytest

from prefrestore.errors import InvalidInputError
from prefrestore.restoration.options import RestoreOptions


@pytest.mark.parametrize(
    "bad",
    [
        {"scale": 3},
        {"batch_size": 0},
        {"seed": -1},
        {"steps": 0},
        {"fidelity": 1.1},
        {"faces": [-1]},
    ],
)
def test_bad_options(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(bad))):
        RestoreOptions(**bad)
