"""MUSIQ on made-up weights in the published format; its patches, places and sizes by hand."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.evaluation.evaluator import MODELS, Evaluator
from prefrestore.files.fingerprints import file_hash
from prefrestore.metrics import musiq
from prefrestore.metrics.musiq import MUSIQ, WEIGHT_FILE, multiscale


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Every key of `musiq_koniq_ckpt-e95806b9.pth` with its shape."""
    shapes: dict[str, tuple[int, ...]] = {"conv_root.weight": (64, 3, 7, 7)}
    kernels = {"conv1": (64, 64, 1, 1), "conv2": (64, 64, 3, 3), "conv3": (256, 64, 1, 1), "conv_proj": (256, 64, 1, 1)}
    shapes |= {f"block1.{name}.weight": shape for name, shape in kernels.items()}
    norms = {"gn_root": 64, "block1.gn1": 64, "block1.gn2": 64, "block1.gn3": 256, "block1.gn_proj": 256}
    encoder = "transformer_encoder."
    norms[encoder + "encoder_norm"] = 384
    layers = {"embedding": (384, 16384), "head": (1, 384)}
    for number in range(14):
        block = f"{encoder}transformer.encoderblock_{number}."
        norms |= {block + "norm1": 384, block + "norm2": 384}
        layers |= {f"{block}attention.{name}": (384, 384) for name in ("query", "key", "value", "out")}
        layers |= {block + "mlp.fc1": (1152, 384), block + "mlp.fc2": (384, 1152)}
    for name, width in norms.items():
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    for name, (out, inputs) in layers.items():
        shapes |= {f"{name}.weight": (out, inputs), f"{name}.bias": (out,)}
    return shapes | {
        encoder + "cls": (1, 1, 384),
        encoder + "posembed_input.position_emb": (1, 100, 384),
        encoder + "scaleembed_input.scale_emb": (3, 384),
    }


def scattered(count: int, start: int) -> NDArray[np.float64]:
    """Numbers in [-0.5,0.5) that look random and are the same everywhere."""
    return np.modf(np.sin(np.arange(count) * 12.9898 + start) * 43758.5453)[0] / 2


def made_up() -> dict[str, torch.Tensor]:
    """Weights under the published keys with which the score depends on every part."""
    state = {}
    for number, (key, shape) in enumerate(sorted(published_shapes().items())):
        values = scattered(int(np.prod(shape)), number).reshape(shape)
        if ".norm" in key or "_norm" in key or "gn" in key:
            values = values + 1 if key.endswith("weight") else values
        elif len(shape) in (2, 4) and key.endswith("weight"):
            values = values * 4 / np.sqrt(values[0].size)
        state[key] = torch.from_numpy(values.astype(np.float32))
    return state


def flat(**changes: tuple[int, ...] | None) -> dict[str, torch.Tensor]:
    """Zeros in the published shapes, which take no room in a file; a change names another shape, None no such key."""
    shapes = published_shapes() | {key.replace("__", "."): shape for key, shape in changes.items()}
    return {key: torch.zeros(()).expand(shape) for key, shape in shapes.items() if shape is not None}


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9 + c) * np.cos(y / (7 + c)) + np.sin((x + y) / 3) / 3 for c in range(3)]
    return np.stack([127 + 90 * wave / 1.4 for wave in waves], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that holds made-up weights under the published name."""
    folder = tmp_path_factory.mktemp("cache")
    torch.save(made_up(), folder / WEIGHT_FILE)
    return folder


@pytest.fixture(scope="module")
def model(cache: Path) -> MUSIQ:
    return MUSIQ(cache / WEIGHT_FILE)


def test_the_same_score_as_iqa_pytorch(model: MUSIQ) -> None:
    """What IQA-PyTorch 0.1.16 gives for these weights and pictures, on a CPU."""
    for (height, width), score in {(64, 96): -0.516332, (100, 47): -0.508401, (40, 40): -0.521059}.items():
        assert model.of(smooth(height, width)) == pytest.approx(score, abs=1e-5)


def test_the_same_picture_has_the_same_score_and_no_random_number_is_drawn(model: MUSIQ) -> None:
    state = torch.random.get_rng_state()
    assert model.of(smooth(40, 40)) == model.of(smooth(40, 40)) != model.of(255 - smooth(40, 40))
    assert torch.random.get_rng_state().equal(state)


def test_patches_places_and_sizes_by_hand() -> None:
    image = torch.arange(3 * 64 * 96, dtype=torch.float32).view(3, 64, 96) / 18432
    patches, places, sizes = multiscale(image)
    # 64x96 becomes 149x224 (5 rows of 7 patches) and 256x384 (8 of 12), and is itself 2 rows of 3.
    assert sizes.tolist() == [0] * 35 + [1] * 96 + [2] * 6
    assert patches.shape == (137, 3, 32, 32) and places.shape == (137,)
    assert places[-6:].tolist() == [0, 3, 6, 50, 53, 56]
    # 10 places over 7 columns, and over 5 rows.
    assert places[:7].tolist() == [0, 1, 2, 4, 5, 7, 8] and places[:35:7].tolist() == [0, 20, 40, 60, 80]
    # 12 columns share 10 places.
    assert places[35:47].tolist() == [0, 0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9]
    assert patches[-2].equal(image[:, 32:, 32:64]) and patches[-6].equal(image[:, :32, :32])


def test_what_is_no_whole_patch_is_padded_on_both_sides() -> None:
    image = torch.ones(3, 33, 40)
    patches, places, _ = multiscale(image)
    assert places[-4:].tolist() == [0, 5, 50, 55]
    # 31 rows too few: 15 above, 16 below. 24 columns too few: 12 on each side.
    first, last = patches[-4], patches[-1]
    assert first[:, 15:, 12:].eq(1).all() and first.sum() == 3 * 17 * 20
    assert last[:, :16, :20].eq(1).all() and last.sum() == 3 * 16 * 20


def test_a_constant_stays_one_at_every_size() -> None:
    patches, _, sizes = multiscale(torch.full((3, 64, 64), 0.25))
    torch.testing.assert_close(patches, torch.full_like(patches, 0.25))
    assert torch.bincount(sizes).tolist() == [49, 144, 4]


def test_pictures_it_cannot_judge() -> None:
    with pytest.raises(InvalidInputError, match="as narrow as 2000x2"):
        multiscale(torch.zeros(3, 2, 2000))
    with pytest.raises(InvalidInputError, match=r"not \(1, 8, 8\)"):
        multiscale(torch.zeros(1, 8, 8))


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (flat(gn_root__bias=None), r"gn_root\.bias is missing"),
        (flat(embedding__weight=(384, 8192)), r"embedding\.weight is \(384, 8192\) and not \(384, 16384\)"),
        # The ten-class head of the weights for AVA.
        (
            flat(head__weight=None, head__bias=None, head__0__weight=(10, 384), head__0__bias=(10,)),
            r"head\.weight is missing",
        ),
        (flat(fc__weight=(3, 3)), r"it has fc\.weight too"),
        ([1, 2], "by their names"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, state: Any, sentence: str) -> None:
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=rf"w\.pth .*{sentence}"):
        MUSIQ(tmp_path / "w.pth")


class Touch:
    """Its pickle asks for a file to be made."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_file_that_is_no_weights_is_not_run(tmp_path: Path) -> None:
    torch.save({"conv_root.weight": Touch(tmp_path / "made")}, tmp_path / "bad.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Touch(tmp_path / "made"), 2))
    (tmp_path / "text.pth").write_text("no weights")
    for name in ("bad.pth", "old.pth", "text.pth", "absent.pth"):
        with pytest.raises(WeightsError, match=f"{name} cannot be read"):
            MUSIQ(tmp_path / name)
    assert not (tmp_path / "made").exists()


def test_missing_and_damaged_weights_are_said_and_the_column_left_blank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path))
    others = tuple(metric for metric in MODELS if metric != "musiq")
    said: list[str] = []
    blank = Evaluator(said.append, without=others)
    [line] = said
    assert f"{tmp_path / WEIGHT_FILE} is missing: put the file there" in line and "IQA-PyTorch" in line
    assert blank.missing["musiq"] in line and "musiq" not in blank.available
    assert blank.measure("a", smooth(128, 128), smooth(128, 128))["musiq"] is None
    torch.save(flat(), tmp_path / WEIGHT_FILE)
    damaged = Evaluator(without=others)
    assert "does not begin with e95806b9" in damaged.missing["musiq"]
    assert damaged.alone(smooth(128, 128))["musiq"] is None


def test_evaluate_reports_it_without_a_reference(
    cache: Path, model: MUSIQ, folder_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from prefrestore.cli import app

    monkeypatch.setenv("PREFRESTORE_CACHE", str(cache))
    monkeypatch.setattr(musiq, "SHA256_START", file_hash(cache / WEIGHT_FILE)[:8])
    done, out = folder_of("done", "a.png"), tmp_path / "out"
    command = ["evaluate", "--restored", str(done), "-o", str(out)]
    assert CliRunner().invoke(app, command).exit_code == 0
    report = json.loads((out / "report.json").read_text())
    score = model.of(np.asarray(Image.open(done / "a.png")))
    assert report["sets"]["done"]["systems"]["restored"]["faces"]["a"]["musiq"] == pytest.approx(score, abs=1e-6)
    # The others have nothing to do without a reference, and are not called missing.
    assert not set(MODELS) & set(report["missing"])
    assert report["metrics"]["musiq"]["sha256"] == file_hash(cache / WEIGHT_FILE)
    assert "musiq" in (out / "report.csv").read_text().splitlines()[0]
    assert "MUSIQ, higher" in (out / "report.html").read_text()
    assert CliRunner().invoke(app, [*command, "--without", "musiq"]).exit_code == 0
    report = json.loads((out / "report.json").read_text())
    assert report["missing"]["musiq"] == "not asked for" and "musiq" not in report["metrics"]
    assert "musiq" not in report["sets"]["done"]["systems"]["restored"]["summary"]
