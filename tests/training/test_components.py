"""Components are whole or not there, parts of one run stay together, and nothing of another run is written over."""

from collections.abc import Callable
from pathlib import Path

import pytest

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.training.components import (
    RUN_FILE,
    check_together,
    component_folder,
    is_finished,
    read_record,
    write_components,
)

RUN = {"stage": "fidelity", "settings": {"seed": 0}}


def writer(text: str) -> Callable[[Path], object]:
    """What writes a small component into a folder."""

    def write(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text(text)

    return write


def stopped(folder: Path) -> None:
    raise KeyboardInterrupt


def test_a_missing_component_names_its_command(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="prefrestore train tokenizer"):
        component_folder(tmp_path, "image_tokenizer")


def test_a_configuration_without_weights_is_not_a_component(tmp_path: Path) -> None:
    folder = tmp_path / "autoencoder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="prefrestore train autoencoder"):
        component_folder(tmp_path, "autoencoder")
    (folder / "diffusion_pytorch_model.safetensors").write_text("weights")
    assert component_folder(tmp_path, "autoencoder") == folder


def test_a_written_component_is_whole_until_a_file_of_it_changes(tmp_path: Path) -> None:
    assert write_components(tmp_path, {"transformer": writer("a")}, RUN, 3)
    assert is_finished(tmp_path / "transformer")
    record = read_record(tmp_path / "transformer")
    assert record is not None and record["steps"] == 3 and record["identity"] == RUN
    (tmp_path / "transformer" / "model.safetensors").write_text("b")
    assert not is_finished(tmp_path / "transformer")


def test_a_stopped_export_changes_nothing(tmp_path: Path) -> None:
    write_components(tmp_path, {"transformer": writer("a"), "connectors": writer("a")}, RUN, 3)
    with pytest.raises(KeyboardInterrupt):
        write_components(tmp_path, {"transformer": writer("b"), "connectors": stopped}, RUN, 4)
    assert (tmp_path / "transformer" / "model.safetensors").read_text() == "a"
    assert is_finished(tmp_path / "transformer") and not list(tmp_path.glob(".export*"))


@pytest.mark.parametrize("moves", range(7))
def test_a_kill_between_two_components_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int) -> None:
    """Wherever a process is killed, what lies there is of one run or does not count as whole."""
    import os

    parts = {"transformer": writer("a"), "autoencoder": writer("a")}
    write_components(tmp_path, parts, RUN, 3)
    done, replace = 0, os.replace

    def killed(source: Path, target: Path) -> None:
        nonlocal done
        if done == moves:
            raise KeyboardInterrupt
        done += 1
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_components(tmp_path, {"transformer": writer("b"), "autoencoder": writer("b")}, RUN, 4)
    monkeypatch.undo()
    texts = {(tmp_path / name / "model.safetensors").read_text() for name in parts}
    whole = all(is_finished(tmp_path / name) for name in parts)
    assert not whole or texts == {"a"} or texts == {"b"}
    write_components(tmp_path, {"transformer": writer("b"), "autoencoder": writer("b")}, RUN, 4)
    assert all(is_finished(tmp_path / name) for name in parts)


def test_parts_of_different_runs_are_refused(tmp_path: Path) -> None:
    write_components(tmp_path, {"transformer": writer("a"), "autoencoder": writer("a")}, RUN, 3)
    check_together(tmp_path, ("transformer",))
    write_components(tmp_path, {"autoencoder": writer("c")}, RUN | {"settings": {"seed": 1}}, 3)
    with pytest.raises(WeightsError, match="different runs"):
        check_together(tmp_path, ("transformer",))


def test_the_same_export_is_not_written_twice_and_foreign_files_stay(tmp_path: Path) -> None:
    write_components(tmp_path, {"transformer": writer("a")}, RUN, 3)
    (tmp_path / "transformer" / "notes.txt").write_text("mine")
    before = (tmp_path / "transformer" / RUN_FILE).stat().st_mtime_ns
    assert not write_components(tmp_path, {"transformer": stopped}, RUN, 3)
    assert (tmp_path / "transformer" / RUN_FILE).stat().st_mtime_ns == before
    assert write_components(tmp_path, {"transformer": writer("b")}, RUN, 4)
    assert (tmp_path / "transformer" / "notes.txt").read_text() == "mine"


def test_what_a_later_stage_made_of_a_component_is_not_written_over(tmp_path: Path) -> None:
    earlier = {"stage": "autoencoder"}
    write_components(tmp_path, {"autoencoder": writer("a")}, earlier, 3)
    with pytest.raises(InvalidInputError, match="autoencoder"):
        write_components(tmp_path, {"autoencoder": writer("b")}, RUN, 2)
    write_components(tmp_path, {"autoencoder": writer("b")}, RUN, 2, over=("autoencoder",))
    with pytest.raises(InvalidInputError, match="fidelity"):
        write_components(tmp_path, {"autoencoder": writer("a")}, earlier, 3)
    assert (tmp_path / "autoencoder" / "model.safetensors").read_text() == "b"
