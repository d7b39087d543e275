"""Contact sheets: faces side by side, to be looked at."""

from collections.abc import Sequence

from PIL import Image

_GAP = 4


def _sheet(groups: Sequence[Sequence[Image.Image]], side: int, columns: int) -> Image.Image:
    """Groups of pictures, `columns` groups a row; pictures of a group touch, groups are set apart."""
    wide = len(groups[0]) * side + _GAP
    rows = -(-len(groups) // columns)
    sheet = Image.new("RGB", (columns * wide - _GAP, rows * (side + _GAP) - _GAP), "white")
    for place, group in enumerate(groups):
        x, y = place % columns * wide, place // columns * (side + _GAP)
        for index, picture in enumerate(group):
            shown = picture if picture.size == (side, side) else picture.resize((side, side))
            sheet.paste(shown, (x + index * side, y))
    return sheet


def paired_sheet(triples: Sequence[tuple[Image.Image, Image.Image, Image.Image]]) -> Image.Image:
    """LQ, ours, HQ; three faces a row, 192 px each."""
    return _sheet(triples, 192, 3)


def real_sheet(pairs: Sequence[tuple[Image.Image, Image.Image]]) -> Image.Image:
    """LQ, ours; four faces a row, 192 px each."""
    return _sheet(pairs, 192, 4)


def seed_sheet(inputs: Sequence[Image.Image], rows: Sequence[Sequence[Sequence[Image.Image]]]) -> Image.Image:
    """A row a face, 128 px each: its LQ input, then its seeds of each system, systems set apart."""
    side = 128
    groups = [[picture] for picture in inputs]
    columns = [_sheet(groups, side, 1)]
    for system in range(len(rows[0])):
        columns.append(_sheet([row[system] for row in rows], side, 1))
    width = sum(column.width + 2 * _GAP for column in columns) - 2 * _GAP
    sheet = Image.new("RGB", (width, columns[0].height), "white")
    x = 0
    for column in columns:
        sheet.paste(column, (x, 0))
        x += column.width + 2 * _GAP
    return sheet
