from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from prefrestore.errors import MissingDependencyError, WeightsError
from prefrestore.faces import onnx


@pytest.fixture
def fresh() -> Any:
    onnx.model_path.cache_clear()
    yield
    onnx.model_path.cache_clear()


class Package:
    def __init__(self, path: Path) -> None:
        self.path = path

    def locate_file(self, name: str) -> Any:
        return self.path


def test_both_models_are_there() -> None:
    for name in onnx.SHA256:
        assert onnx.model_path(name).is_file()


def test_a_missing_package_is_named(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "PACKAGE", "there-is-no-such-package")
    with pytest.raises(MissingDependencyError, match="there-is-no-such-package"):
        onnx.model_path(onnx.YUNET)


def test_changed_or_missing_files_are_refused(fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    changed = tmp_path / "model.onnx"
    monkeypatch.setattr(metadata, "distribution", lambda name: Package(changed))
    with pytest.raises(MissingDependencyError, match=r"model\.onnx"):
        onnx.model_path(onnx.YUNET)
    changed.write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"model\.onnx"):
        onnx.model_path(onnx.YUNET)
