"""Two stages put their inputs on the device of the run: shown on torch's ``meta`` device, so without a GPU.

Not covered: the other stages, and the training step of these two.
"""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType

from prefrestore.preference import trainer as preference
from prefrestore.training import tokenizer as stage


class Enough(Exception):
    """What there is to see was seen."""


def test_held_out_faces_are_measured_where_the_tokenizer_is() -> None:
    seen: list[str] = []

    class Tokenizer:
        device = torch.device("meta")

        def encode(self, images: torch.Tensor) -> None:
            seen.append(images.device.type)
            raise Enough

    with pytest.raises(Enough):
        stage.measure_codes(Tokenizer(), torch.zeros(4, 3, 8, 8), torch.zeros(4, 2), torch.zeros(4, 5, 2))  # type: ignore[arg-type]
    assert seen == ["meta"]


def test_pairs_are_computed_on_the_device_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def latent_pairs(pipeline: torch.nn.Module, *_: object) -> None:
        seen.append(pipeline.device.type)
        raise Enough

    place = SimpleNamespace(device=torch.device("meta"), distributed_type=DistributedType.NO)
    monkeypatch.setattr(preference, "new_accelerator", lambda *_: place)
    monkeypatch.setattr(preference, "latent_pairs", latent_pairs)
    config = preference.Config(data=(tmp_path,), output_dir=tmp_path, preset="tiny", rewards="psnr=1", held_out="none")
    with pytest.raises(Enough):
        preference.run(config)
    assert seen == ["meta"]
