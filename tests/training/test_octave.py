"""The last octave at tiny scale: trained behind a core, put into the pipeline folder, and left out where not wanted."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

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
        "face_margin": 16,
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
    places = np.random.default_rng(0).integers(3, size=(5, 2)) * 16
    squares = octave.cut(pairs, np.zeros(5, int), places, 32)
    assert squares["targets"].shape == (5, 32, 32, 3) and squares["restored"].shape == (5, 16, 16, 3)
    assert np.array_equal(squares["lq"][:, ::2, ::2], squares["restored"])
    assert len({tuple(square[0, 0]) for square in squares["targets"]}) > 1


def test_whole_faces_are_seen_in_a_batch(trained: tuple[Path, Path]) -> None:
    side = 64
    pictures = np.random.default_rng(3).integers(0, 256, (4, side, side, 3), dtype=np.uint8)
    pairs = {"restored": pictures[:, ::2, ::2], "lq": pictures, "targets": pictures}
    batch = octave.batch_of(pairs, settings(*trained, crop=32, faces=3, face_margin=16), step=5)
    assert batch["targets"].shape == (2, 3, 32, 32)
    assert batch["whole_targets"].shape == (3, 3, 32, 32) and batch["whole_restored"].shape == (3, 3, 16, 16)
    inner = octave.to_signed(pictures[:, 16:48, 16:48])
    assert all(any(torch.equal(face, each) for each in inner) for face in batch["whole_targets"])
    assert "whole_targets" not in octave.batch_of(pairs, settings(*trained, crop=32, faces=0), step=5)


def test_the_likeness_of_whole_faces_is_learnt_from(trained: tuple[Path, Path]) -> None:
    config = settings(*trained, adversarial_weight=0.0)
    objective = octave.new_objective(config)
    faces = torch.rand(1, 3, SIZE - 32, SIZE - 32, generator=torch.Generator().manual_seed(4)) * 2 - 1
    squares = faces[..., :64, :64]
    half = torch.nn.functional.avg_pool2d
    told = {"whole_restored": half(faces, 2), "whole_lq": faces, "whole_targets": faces.flip(-1)}
    losses = objective(half(squares, 2), squares, squares, torch.Generator().manual_seed(0), **told)
    assert losses["identity"] > 0 and losses["features"] > 0
    (losses["loss"] - config.l1_weight * losses["l1"]).backward()
    assert objective.last_octave.draw.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("margin", [8, 64])
def test_a_margin_that_does_not_fit(trained: tuple[Path, Path], margin: int) -> None:
    with pytest.raises(InvalidInputError, match="multiple of 16"):
        octave.run(settings(*trained, face_margin=margin))


@pytest.mark.parametrize("crop", [40, 256])
def test_a_crop_that_does_not_fit(trained: tuple[Path, Path], crop: int) -> None:
    with pytest.raises(InvalidInputError, match="multiple of 16"):
        octave.run(settings(trained[0], trained[1], crop=crop))


def test_less_may_be_kept_of_what_lies_below_the_octave(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "cache"))
    data, work = trained
    for part in work.iterdir():
        if part.name not in ("last_octave", "runs"):
            (tmp_path / part.name).symlink_to(part)
    octave.run(settings(data, tmp_path, coarse=0.25))
    kind = type(octave.new_objective(settings(data, work)).last_octave)
    whole, less = (kind.from_pretrained(each / "last_octave") for each in (work, tmp_path))
    assert (whole.config.coarse, less.config.coarse) == (1.0, 0.25)
    assert all(torch.equal(value, less.state_dict()[name]) for name, value in whole.state_dict().items())
