"""98 landmarks: the network's maps against another program's, points from maps by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch

from prefrestore.errors import WeightsError
from prefrestore.files.weights import file_hash
from prefrestore.metrics.fan import LandmarkNetwork, coordinates, load_landmark_network, peaks


def test_the_maps_are_those_of_facexlib(made_up: Any, tmp_path: Path) -> None:
    """facexlib 0.3.0's FAN of two modules and four points, on these weights and this picture."""
    shapes = {key: tuple(value.shape) for key, value in LandmarkNetwork(256, 2, 4).state_dict().items()}
    path = tmp_path / "fan.pth"
    torch.save({"state_dict": made_up.weights(shapes)}, path)
    network = load_landmark_network(path)
    assert network.sha256 == file_hash(path)
    image = torch.from_numpy(made_up.smooth(256, 256)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        maps = network(image)
    assert maps.shape == (1, 4, 64, 64)
    assert maps[0, :, 30, 20].tolist() == pytest.approx([24.61456, 29.13030, -14.15716, -19.25908], abs=2e-3)
    assert float(maps.mean()) == pytest.approx(4.96709, abs=1e-3)
    # The same points for a picture of any size, in px at 512.
    assert network.points(image).shape == (1, 4, 2)


def test_points_of_maps_by_hand() -> None:
    maps = torch.zeros(1, 4, 8, 8)
    maps[0, 0, 2, 5], maps[0, 0, 2, 4], maps[0, 0, 3, 5] = 3, 1, 2  # higher to the left, and below
    maps[0, 1, 4, 4] = 1  # alone: the pixel's middle
    maps[0, 2, 0, 0], maps[0, 2, 0, 1] = 2, 1  # in a corner: the edge itself is no lower than what is outside
    maps[0, 3, 7, 7], maps[0, 3, 6, 7] = 2, 1
    wanted = [[5 - 0.25 + 0.5, 2 + 0.25 + 0.5], [4.5, 4.5], [0.25, 0.25], [7.75, 7.75]]
    assert peaks(maps)[0].tolist() == wanted


def test_coordinates_by_hand() -> None:
    rows, columns, radius = coordinates(3)[0]
    assert rows.tolist() == [[-1, -1, -1], [0, 0, 0], [1, 1, 1]] and columns.equal(rows.T)
    root = 0.5**0.5
    torch.testing.assert_close(radius, torch.tensor([[1, root, 1], [root, 0, root], [1, root, 1]]))


def test_a_smaller_file_and_those_that_do_not_fit(made_up: Any, tmp_path: Path) -> None:
    shapes = {key: tuple(value.shape) for key, value in LandmarkNetwork(8, 3, 98).state_dict().items()}
    state = made_up.weights(shapes)
    torch.save({"state_dict": state}, tmp_path / "small.pth")
    assert load_landmark_network(tmp_path / "small.pth").points(torch.rand(2, 3, 64, 64)).shape == (2, 98, 2)
    less = {key: value for key, value in state.items() if key != "m1.b2_3.conv2.weight"}
    for name, content in (
        ("less.pth", less),
        ("more.pth", state | {"x": torch.zeros(1)}),
        ("other.pth", {"x": torch.zeros(1)}),
    ):
        torch.save(content, tmp_path / name)
        with pytest.raises(WeightsError, match=name):
            load_landmark_network(tmp_path / name)
