"""The last octave at tiny scale: trained behind a core, put into the pipeline folder, and left out where not wanted."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from prefrestore.errors import InvalidInputError
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.training import assemble, octave

SIZE = 128  # twice what tiny's core works on


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("octave")
    data, work = root / "data", root / "work"
    data.mkdir()
    rng = np.random.default_rng(0)
    for k in range(4):
        coarse = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        cv2.imwrite(str(data / f"face_{k}.png"), cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC))
    small = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    cv2.imwrite(str(data / "small.png"), small)
    load_preset_pipeline("tiny").save_pretrained(work)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFRESTORE_CACHE", str(root / "cache"))
        octave.run(settings(data, work))
    return data, work


def settings(data: Path, work: Path, **changes: object) -> octave.Config:
    given: dict[str, object] = {
        "data": (data,),
        "output_dir": work,
        "preset": "tiny",
        "steps": 3,
        "batch_size": 2,
        "pairs": 4,
        "min_side": 100,
        "crop": 64,
        "perceptual_weight": 0.0,  # LPIPS needs weights that a stranger's machine does not have
        "adversarial_weight": 0.3,
        "adversarial_warmup": 1,
    }
    return octave.Config(**{**given, **changes})  # type: ignore[arg-type]


def test_it_becomes_part_of_the_pipeline(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, work = trained
    assemble.run(assemble.Config(data=(data,), output_dir=work, destination=tmp_path / "pipe", preset="tiny", faces=1))
    whole = load_preset_pipeline("tiny", folder=tmp_path / "pipe")
    face = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    assert whole.face_size == SIZE
    restored = whole(face, generator=torch.Generator().manual_seed(0), output_type="np").images
    assert restored.shape == (1, SIZE, SIZE, 3) and np.isfinite(restored).all()
    assert any(name.startswith("last_octave/") for name in whole.weight_hashes)

    core = load_preset_pipeline("tiny", folder=tmp_path / "pipe", face_size=64)
    assert core.face_size == 64 and core.last_octave is None
    assert not any(name.startswith("last_octave/") for name in core.weight_hashes)
    assert core(face, output_type="np").images.shape == (1, 64, 64, 3)
    with pytest.raises(InvalidInputError, match="64 or 128"):
        load_preset_pipeline("tiny", folder=tmp_path / "pipe", face_size=100)


def test_the_core_does_the_same_under_it(trained: tuple[Path, Path]) -> None:
    """The latents are those of the halved face: the octave is put on top and changes nothing below it."""
    core = load_preset_pipeline("tiny")
    face = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2)) * 2 - 1
    halved = torch.nn.functional.avg_pool2d(face, 2)
    expected = core(halved, generator=torch.Generator().manual_seed(0), output_type="latent").images
    whole = load_preset_pipeline("tiny")
    trained_octave = type(octave.new_objective(settings(trained[0], trained[1])).last_octave)
    whole.register_modules(last_octave=trained_octave.from_pretrained(trained[1] / "last_octave"))
    assert torch.equal(whole(face, generator=torch.Generator().manual_seed(0), output_type="latent").images, expected)


def test_small_faces_are_not_learnt_from(trained: tuple[Path, Path]) -> None:
    targets = np.load(trained[1] / "runs" / "octave_pairs" / "targets.npy")
    # Nothing of the 32 px noise: neighbours of the enlarged squares differ by little.
    assert np.abs(np.diff(targets.astype(int), axis=2)).mean() < 12


def test_squares_are_cut_from_one_place() -> None:
    side = 64
    y, x = np.mgrid[:side, :side].astype(np.uint8)
    large = np.stack([y, x, x], axis=-1)[None]
    pairs = {"restored": large[:, ::2, ::2], "lq": large, "targets": large}
    squares = octave.cut(pairs, np.zeros(5, int), 32, np.random.default_rng(0))
    assert squares["targets"].shape == (5, 32, 32, 3) and squares["restored"].shape == (5, 16, 16, 3)
    assert np.array_equal(squares["lq"][:, ::2, ::2], squares["restored"])
    assert len({tuple(square[0, 0]) for square in squares["targets"]}) > 1


@pytest.mark.parametrize("crop", [40, 256])
def test_a_crop_that_does_not_fit(trained: tuple[Path, Path], crop: int) -> None:
    with pytest.raises(InvalidInputError, match="multiple of 16"):
        octave.run(settings(trained[0], trained[1], crop=crop))


def test_less_of_what_it_draws_may_be_written(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))
    data, work = trained
    for part in work.iterdir():
        if part.name not in ("last_octave", "runs"):
            (tmp_path / part.name).symlink_to(part)
    octave.run(settings(data, tmp_path, drawn=0.5))
    whole, half = (load_file(each / "last_octave" / "diffusion_pytorch_model.safetensors") for each in (work, tmp_path))
    for name, value in whole.items():
        assert torch.allclose(half[name], value * (0.5 if name.startswith("draw.") else 1.0), atol=1e-6), name
