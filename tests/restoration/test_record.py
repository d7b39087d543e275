"""The JSON record."""

import json
from pathlib import Path

import numpy as np
import pytest

from prefrestore.errors import ImageWriteError
from prefrestore.pictures.photo import Photo
from prefrestore.restoration.record import FaceRecord, PhotoResult, write_record


def result(height: int, width: int, factor: int = 1) -> PhotoResult:
    face = FaceRecord(
        index=1,
        box=(1, 2, 3.14159, 4),
        points=((0.123456, 1),) * 5,
        score=0.987654,
        quality=0.5,
        yaw=10.0,
        photo_per_model=0.3,
        status="restored",
        similarity=0.2,
        warnings=("look again",),
    )
    before = Photo(pixels=np.zeros((height, width, 3), np.uint8), path=Path("in.png"), notes=("damaged EXIF",))
    after = before.with_pixels(np.full((height * factor, width * factor, 3), 255, np.uint8), None)
    return PhotoResult(photo=after, before=before, faces=(face,), settings={"seed": 3, "weights": {"a": "b"}})


def test_the_record(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        write_record(result(20, 30), tmp_path / name, notes=("a note",))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["seed"] == 3 and record["weights"] == {"a": "b"}
    assert record["input"] == {"name": "in.png", "format": "PNG", "mode": "RGB", "size": [30, 20]}
    assert record["output"] == {"size": [30, 20]}
    assert record["notes"] == ["damaged EXIF", "a note"]
    (face,) = record["faces"]
    assert face["index"] == 1 and face["box"] == [1, 2, 3.14, 4] and face["points"][0] == [0.12, 1]
    assert face["identity_similarity"] == 0.2 and face["warnings"] == ["look again"]
    assert result(2, 2).warnings == ("face 1: look again",)


def test_a_record_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageWriteError, match=r"c\.json"):
        write_record(result(2, 2), tmp_path / "file" / "c.json")


@pytest.mark.parametrize("factor", [1, 2])
def test_before_and_after_in_one_picture(factor: int) -> None:
    upright = result(40, 30, factor).compare()
    assert upright.shape == (40 * factor, 60 * factor + 8, 3)
    assert not upright[:, : 30 * factor].any() and (upright[:, 30 * factor :] == 255).all()
    wide = result(20, 60, factor).compare()
    assert wide.shape == (40 * factor + 8, 60 * factor, 3)
