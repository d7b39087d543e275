"""The reliability diagram: how sure against how often right, as a picture that needs no plotting library."""

from __future__ import annotations

from PIL import Image, ImageDraw

from prefrestore.preference.bradley_terry import Reliability, wilson_interval

_SIDE, _LEFT, _TOP, _BOTTOM = 360, 56, 40, 56
_GREY, _BLUE, _PALE = (120, 120, 120), (30, 90, 170), (200, 215, 235)


def reliability_diagram(table: Reliability, title: str) -> Image.Image:
    """Confidence (0.5 to 1) across, share right (0 to 1) up, with 95 % intervals; bars below are the bins' sizes.

    On the diagonal a judge is as often right as it is sure.
    """
    picture = Image.new("RGB", (_LEFT + _SIDE + 24, _TOP + _SIDE + _BOTTOM), "white")
    draw = ImageDraw.Draw(picture)

    def at(confidence: float, share: float) -> tuple[float, float]:
        return _LEFT + (confidence - 0.5) * 2 * _SIDE, _TOP + (1 - share) * _SIDE

    most = max(table.counts)
    for low, high, count in zip(table.edges, table.edges[1:], table.counts, strict=False):
        left, right = at(low, 0)[0], at(high, 0)[0]
        draw.rectangle((left + 2, at(0, 0.25 * count / most)[1], right - 2, at(0, 0)[1]), fill=_PALE)
    draw.line([at(0.5, 0.5), at(1, 1)], fill=_GREY)
    draw.rectangle((*at(0.5, 1), *at(1, 0)), outline="black")
    for tick in range(6):
        across, up = at(0.5 + tick / 10, 0), at(0.5, tick / 5)
        draw.text((across[0] - 10, across[1] + 6), f"{0.5 + tick / 10:.1f}", fill="black")
        draw.text((up[0] - 26, up[1] - 6), f"{tick / 5:.1f}", fill="black")
    for count, sure, share in zip(table.counts, table.confidence, table.right, strict=True):
        if not count:
            continue
        low, high = wilson_interval(share, count)
        draw.line([at(sure, low), at(sure, high)], fill=_BLUE, width=2)
        x, y = at(sure, share)
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=_BLUE)
    draw.text((_LEFT, 10), title, fill="black")
    draw.text((_LEFT + _SIDE / 3, _TOP + _SIDE + 26), "predicted confidence", fill="black")
    draw.text((4, _TOP - 22), "share right", fill="black")
    summary = f"{table.n} pairs, {table.accuracy:.1%} right, calibration error {table.expected_calibration_error:.3f}"
    draw.text((_LEFT, _TOP + _SIDE + 40), summary, fill="black")
    return picture
