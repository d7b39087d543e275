"""The last octave: twice the size, gates on the input's bands, and nothing drawn before it has learnt."""

import torch
from torch.nn import functional as F

from prefrestore.models.texture.input_skip import bands
from prefrestore.models.texture.last_octave import LastOctave, core_view


def new_octave(first: tuple[float, ...] = (0.02, 0.02, 0.05)) -> LastOctave:
    torch.manual_seed(0)
    return LastOctave(widths=(8, 8, 8), blocks=(1, 1, 1), levels=2, first=first).eval()


def test_a_new_one_enlarges_and_lets_its_first_shares_through() -> None:
    octave, generator = new_octave(), torch.Generator().manual_seed(0)
    restored = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    lq = torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1
    large = F.interpolate(restored, scale_factor=2, mode="bicubic", align_corners=False)
    parts = bands(lq - large, 2)
    expected = large + 0.02 * parts[0] + 0.02 * parts[1] + 0.05 * parts[2]
    with torch.no_grad():
        assert torch.allclose(octave(restored, lq), expected, atol=1e-5)


def test_with_open_gates_the_input_comes_through() -> None:
    octave = new_octave(first=(1 - 1e-6,) * 3)
    lq = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(octave(torch.zeros(1, 3, 32, 32), lq), lq, atol=1e-4)


def test_what_it_learns_to_draw_is_added_at_full_size() -> None:
    octave = new_octave()
    restored, lq = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        octave.draw.bias.copy_(torch.arange(48.0) / 48)
        drawn = octave(restored, lq)
    # Every square of 4 x 4 px holds the 16 numbers of its colour.
    assert torch.allclose(drawn[0, 0, :4, :4].flatten(), torch.arange(16.0) / 48, atol=1e-6)
    assert torch.equal(drawn[..., :4, :4], drawn[..., 60:, 60:])


def test_less_may_be_left_of_what_is_drawn_below_its_octave() -> None:
    octave = new_octave()
    restored, lq = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 64, 64)
    # A level of 0.5 is below the octave, signs that change from column to column are the octave itself.
    signs = torch.tensor([1.0, -1.0]).repeat(24)
    with torch.no_grad():
        octave.draw.bias.copy_(0.5 + 0.125 * signs)
        octave.register_to_config(coarse=0.25)
        drawn = octave(restored, lq)
    expected = 0.25 * 0.5 + 0.125 * signs[:2].repeat(32)
    assert torch.allclose(drawn, expected.expand_as(drawn), atol=1e-6)


def test_the_core_sees_means_of_squares() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert core_view(image, new_octave()).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert core_view(image, None) is image
