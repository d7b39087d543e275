"""A stage that comes too early says which command makes what it needs."""

from pathlib import Path

import pytest

from prefrestore.errors import WeightsError
from prefrestore.training.components import component_folder


def test_a_missing_component_names_its_command(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="prefrestore train tokenizer"):
        component_folder(tmp_path, "image_tokenizer")
    (tmp_path / "autoencoder").mkdir()
    assert component_folder(tmp_path, "autoencoder") == tmp_path / "autoencoder"
