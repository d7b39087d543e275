import pickle
import pickletools
import struct
from pathlib import Path

import numpy as np
import pytest

from prefrestore.errors import WeightsError
from prefrestore.evaluation.fetch import check_hash, convert_arrays, main
from prefrestore.files.safepickle import load_arrays


def test_arrays_come_back() -> None:
    tree = {"Net": {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "bias": np.ones(3)}}
    for protocol in (3, 4):
        arrays = load_arrays(pickle.dumps(tree, protocol=protocol), "a.ckpt")
        assert set(arrays) == {"Net/kernel", "Net/bias"}
        np.testing.assert_array_equal(arrays["Net/kernel"], tree["Net"]["kernel"])


def test_fortran_order_is_kept() -> None:
    array = np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3))
    np.testing.assert_array_equal(load_arrays(pickle.dumps({"a": array}, 3), "a")["a"], array)


class Touch:
    """Its pickle asks for a file to be made."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_what_a_pickle_asks_for_is_not_run(tmp_path: Path) -> None:
    harmful = pickle.dumps({"a": Touch(tmp_path / "made")}, 3)
    assert any("touch" in str(argument) for _, argument, _ in pickletools.genops(harmful))
    with pytest.raises(WeightsError, match="not part of an array"):
        load_arrays(harmful, "bad.ckpt")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "value",
    [{"a": 1.5}, ["a"], {"a": np.array(["text"])}, {"a": np.array([None], dtype=object)}],
)
def test_other_things_than_arrays_are_refused(value: object) -> None:
    with pytest.raises(WeightsError, match=r"bad\.ckpt"):
        load_arrays(pickle.dumps(value, 3), "bad.ckpt")


def test_truncated_pickle() -> None:
    data = pickle.dumps({"a": np.zeros(100)}, 3)
    with pytest.raises(WeightsError):
        load_arrays(data[:60], "short.ckpt")


def test_an_array_whose_shape_lies() -> None:
    data = pickle.dumps({"a": np.zeros(7, np.float32)}, 3)
    assert data.count(b"K\x07\x85") == 1
    with pytest.raises(WeightsError, match="holds 7 numbers"):
        load_arrays(data.replace(b"K\x07\x85", b"K" + struct.pack("B", 9) + b"\x85"), "a.ckpt")


def test_conversion_transposes_kernels_and_flattens_heads() -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(5, 3, 2, 4)).astype(np.float32)  # height, width, in, out
    head = rng.normal(size=(1, 1, 4, 1)).astype(np.float32)
    state = convert_arrays(
        {"Net_0/Conv_1/kernel": kernel, "Net_0/Conv_1/bias": np.ones(4), "NetLinLayer_2/Conv_0/kernel": head}, "Net_0"
    )
    assert set(state) == {"convs.1.weight", "convs.1.bias", "heads.2"}
    assert state["convs.1.weight"].shape == (4, 2, 5, 3)
    assert state["convs.1.weight"][3, 1, 4, 2] == kernel[4, 2, 1, 3]
    np.testing.assert_array_equal(state["heads.2"], head[0, 0, :, 0])


def test_a_wrong_archive_is_refused(tmp_path: Path, monkeypatch, capsys) -> None:  # noqa: ANN001
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))
    archive = tmp_path / "archive.tar.gz"
    archive.write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"archive\.tar\.gz has the SHA-256"):
        check_hash(archive, "0" * 64)
    assert main(["--archive", str(archive)]) == 1
    assert "SHA-256" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
