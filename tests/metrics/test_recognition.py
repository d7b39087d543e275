"""Recognisers named by a file: numbers of other programs, by hand, and files that do not fit."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from prefrestore.errors import WeightsError
from prefrestore.files.weights import file_hash
from prefrestore.metrics.recognition import AdaFace, GreyArcFace, degrees, load_recogniser
from prefrestore.metrics.sface import crop_faces


def shapes(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


@pytest.fixture(scope="module")
def adaface(made_up: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A checkpoint as AdaFace's training writes it, of tiny widths: the network beside its classifier."""
    state = made_up.weights(shapes(AdaFace((4, 4, 4, 6, 8, 8, 10), 12)))
    path = tmp_path_factory.mktemp("adaface") / "adaface.ckpt"
    inside = {f"model.{key}": value for key, value in state.items()} | {"head.kernel": torch.zeros(12, 3)}
    torch.save({"epoch": 25, "state_dict": inside}, path)
    return path, state


def test_arcface_gives_what_gfpgans_class_gives(made_up: Any, tmp_path: Path) -> None:
    """GFPGAN 1.3.8's ResNetArcFace with narrower layers, on these weights and pictures."""
    path = tmp_path / "arcface_resnet18.pth"
    # The published file was saved in parallel training.
    torch.save(
        {f"module.{key}": value for key, value in made_up.weights(shapes(GreyArcFace((8, 8, 16, 32), 16))).items()},
        path,
    )
    network = load_recogniser(path)
    assert network.kind == "arcface" and network.sha256 == file_hash(path) and network.differentiable
    first, second = network.of(made_up.smooth(256, 256)), network.of(255 - made_up.smooth(256, 256))
    assert first[:4].tolist() == pytest.approx([-0.013246, -0.222319, 0.146089, -0.096369], abs=2e-5)
    assert float(first @ second) == pytest.approx(0.999516, abs=1e-5)
    assert degrees(first, second) == pytest.approx(np.degrees(np.arccos(0.999516)), abs=2e-2)


def test_adaface_step_by_step(adaface: tuple[Path, dict[str, torch.Tensor]], made_up: Any) -> None:
    path, state = adaface
    network = load_recogniser(path)
    assert network.kind == "adaface"
    image = torch.from_numpy(made_up.smooth(128, 128)).permute(2, 0, 1)[None].float() / 127.5 - 1

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        given = [state.get(f"{name}.{part}") for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *given)

    x = crop_faces(image)[:, [2, 1, 0]]
    x = F.prelu(
        norm(F.conv2d(x, state["input_layer.0.weight"], padding=1), "input_layer.1"), state["input_layer.2.weight"]
    )
    for place, stride in enumerate((2, 1, 2, 2, 1, 2)):
        name = f"body.{place}."
        around = x[:, :, ::stride, ::stride]
        if f"{name}shortcut_layer.0.weight" in state:
            around = norm(
                F.conv2d(x, state[f"{name}shortcut_layer.0.weight"], stride=stride), f"{name}shortcut_layer.1"
            )
        y = F.conv2d(norm(x, f"{name}res_layer.0"), state[f"{name}res_layer.1.weight"], padding=1)
        y = F.prelu(norm(y, f"{name}res_layer.2"), state[f"{name}res_layer.3.weight"])
        x = around + norm(
            F.conv2d(y, state[f"{name}res_layer.4.weight"], stride=stride, padding=1), f"{name}res_layer.5"
        )
    assert x.shape == (1, 10, 7, 7)
    x = F.linear(norm(x, "output_layer.0").flatten(1), state["output_layer.3.weight"], state["output_layer.3.bias"])
    x = norm(x, "output_layer.4")
    torch.testing.assert_close(network(image), F.normalize(x, dim=1), atol=1e-5, rtol=1e-4)
    assert network.train().training is False


def test_points_say_where_the_face_is(adaface: tuple[Path, Any], made_up: Any) -> None:
    from prefrestore.faces.align import ffhq_template

    network, picture = load_recogniser(adaface[0]), made_up.smooth(128, 128)
    usual = np.asarray(ffhq_template(128))
    np.testing.assert_allclose(network.of(picture, usual), network.of(picture), atol=1e-5)
    moved = np.roll(picture, (6, 9), (0, 1))
    known = network.of(picture)
    assert np.abs(network.of(moved, usual + [9, 6]) - known).max() < 1e-5 < np.abs(network.of(moved) - known).max()


def test_degrees_by_hand() -> None:
    first = np.array([1.0, 0.0])
    for angle in (0, 60, 90, 180):
        second = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
        assert degrees(first, second) == pytest.approx(angle, abs=1e-5)


def test_onnx(made_up: Any, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    weight = np.zeros((4, 3 * 112 * 112), np.float32)
    weight[0, 0], weight[1, 112 * 112], weight[2, 2 * 112 * 112] = 1, 1, 1  # red, green and blue of the first pixel
    weight[3, -1] = 1

    def write(name: str, scales: bool) -> Path:
        nodes = [onnx.helper.make_node("Flatten", ["scaled" if scales else "data"], ["flat"])]
        nodes.append(onnx.helper.make_node("Gemm", ["flat", "weight"], ["vector"], transB=1))
        kept = [onnx.numpy_helper.from_array(weight, "weight")]
        if scales:
            nodes.insert(0, onnx.helper.make_node("Mul", ["shifted", "by"], ["scaled"]))
            nodes.insert(0, onnx.helper.make_node("Sub", ["data", "from"], ["shifted"]))
            kept += [
                onnx.numpy_helper.from_array(np.array([v], np.float32), n)
                for n, v in (("from", 127.5), ("by", 1 / 127.5))
            ]
        shape = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            nodes, "g", [shape("data", 1, [1, 3, 112, 112])], [shape("vector", 1, [1, 4])], kept
        )
        onnx.save(
            onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8),
            tmp_path / name,
        )
        return tmp_path / name

    picture = made_up.smooth(128, 128)
    crop = crop_faces(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1)[0]
    wanted = F.normalize(torch.stack([*crop[:, 0, 0], crop[2, -1, -1]]), dim=0)
    for name, scales in (("plain.onnx", False), ("scales.onnx", True)):
        network = load_recogniser(write(name, scales))
        assert network.kind == "onnx" and not network.differentiable
        np.testing.assert_allclose(network.of(picture), wanted, atol=1e-4)
    (tmp_path / "text.onnx").write_text("no network")
    for name in ("text.onnx", "absent.onnx"):
        with pytest.raises(WeightsError, match=name):
            load_recogniser(tmp_path / name)


def test_files_that_are_no_recogniser(adaface: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    state = {key: value.contiguous() for key, value in adaface[1].items()}
    save_file(
        {key: value for key, value in state.items() if key != "body.3.res_layer.4.weight"},
        tmp_path / "less.safetensors",
    )
    save_file(state | {"more": torch.zeros(1)}, tmp_path / "more.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "text.pth").write_text("no weights")
    for name in ("less.safetensors", "more.safetensors", "other.safetensors", "text.pth", "absent.pth"):
        with pytest.raises(WeightsError, match=name):
            load_recogniser(tmp_path / name)


class Touch:
    """Its pickle asks for a file to be made."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Touch(tmp_path / "made")}, tmp_path / "bad.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Touch(tmp_path / "made"), 2))
    for name in ("bad.pth", "old.pth"):
        with pytest.raises(WeightsError, match=f"{name} cannot be read"):
            load_recogniser(tmp_path / name)
    assert not (tmp_path / "made").exists()
