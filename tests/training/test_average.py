"""Averaged components: their numbers, what is refused, and that the mean is a component like any other."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.training import average
from prefrestore.training.components import component_folder, is_finished

FILE = "diffusion_pytorch_model.safetensors"


def folder_of(root: Path, tensors: dict[str, torch.Tensor], name: str = "lq_encoder") -> Path:
    (root / name).mkdir(parents=True)
    save_file(tensors, root / name / FILE)
    (root / name / "config.json").write_text("{}")
    return root


def asked(*sources: Path, output: Path, components: tuple[str, ...] = ("lq_encoder",)) -> average.Config:
    return average.Config(sources=sources, components=components, output_dir=output)


def test_the_mean_of_three(tmp_path: Path) -> None:
    parts = [
        folder_of(tmp_path / str(k), {"a": torch.tensor([k, 2.0 * k]).half(), "n": torch.tensor([7 + k])})
        for k in (1, 2, 6)
    ]
    average.run(asked(*parts, output=tmp_path / "out"))
    made = load_file(tmp_path / "out" / "lq_encoder" / FILE)
    assert made["a"].tolist() == [3.0, 6.0] and made["a"].dtype == torch.float32
    assert made["n"].tolist() == [8]
    assert is_finished(component_folder(tmp_path / "out", "lq_encoder"))
    average.run(asked(*parts, output=tmp_path / "out"))  # again: nothing is lost


def test_the_mean_of_one_network_with_itself_is_that_network(tmp_path: Path) -> None:
    pipeline = load_preset_pipeline("tiny")
    pipeline.save_pretrained(tmp_path / "a")
    average.run(asked(tmp_path / "a", tmp_path / "a", output=tmp_path / "out"))
    again = type(pipeline.lq_encoder).from_pretrained(tmp_path / "out" / "lq_encoder")
    kept = pipeline.lq_encoder.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in again.state_dict().items())


def test_what_cannot_be_averaged(tmp_path: Path) -> None:
    first = folder_of(tmp_path / "first", {"a": torch.zeros(2)})
    other = folder_of(tmp_path / "other", {"a": torch.zeros(3)})
    with pytest.raises(WeightsError, match="same tensors"):
        average.run(asked(first, other, output=tmp_path / "out"))
    with pytest.raises(WeightsError, match="not there yet"):
        average.run(asked(first, tmp_path / "nothing", output=tmp_path / "out"))
    with pytest.raises(InvalidInputError, match="--sources"):
        average.run(asked(first, output=tmp_path / "out"))
    assert not (tmp_path / "out" / "lq_encoder").exists()


def test_a_component_of_another_stage_is_not_written_over(tmp_path: Path) -> None:
    sources = [folder_of(tmp_path / name, {"a": torch.zeros(2)}) for name in "ab"]
    out = folder_of(tmp_path / "out", {"a": torch.ones(2)})
    (out / "lq_encoder" / "run.json").write_text('{"stage": "encoder", "run": "x", "steps": 3, "files": {}}')
    with pytest.raises(InvalidInputError, match="would be lost"):
        average.run(asked(*sources, output=out))
    assert load_file(out / "lq_encoder" / FILE)["a"].tolist() == [1.0, 1.0]
