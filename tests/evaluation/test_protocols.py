"""Which faces belong together, and what a named test set must hold."""

from collections.abc import Callable
from pathlib import Path

import pytest

from prefrestore.errors import InvalidInputError
from prefrestore.evaluation.folders import face_set
from prefrestore.evaluation.protocols import PROTOCOLS, protocol_of, protocol_sets, remarks

Make = Callable[..., Path]


def test_names_pair_whatever_the_suffix_and_what_one_folder_lacks_is_set_aside(folder_of: Make) -> None:
    lq = folder_of("lq", "a.png", "sub/b.jpg", "c.png")
    gt = folder_of("gt", "a.webp", "sub/b.png", "d.png")
    found = face_set("x", lq=lq, reference=gt)
    assert sorted(face.name for face in found.faces) == ["a", "sub/b"]
    assert {face.name: face.reference for face in found.faces}["sub/b"] == gt / "sub" / "b.png"
    aside = dict(found.aside)
    assert set(aside) == {"c", "d"} and str(gt) in aside["c"] and str(lq) in aside["d"]


def test_a_smaller_sample_lies_inside_a_larger_one(folder_of: Make) -> None:
    folder = folder_of("lq", *(f"{i}.png" for i in range(12)))
    names = [{face.name for face in face_set("x", lq=folder, limit=limit).faces} for limit in (3, 6, None)]
    assert names[0] < names[1] < names[2] and [len(found) for found in names] == [3, 6, 12]


@pytest.mark.parametrize(
    ("folders", "match"),
    [
        ({}, "name a folder"),
        ({"lq": "none"}, "is not a folder"),
        ({"lq": "empty"}, "holds no picture"),
        ({"lq": "lq", "reference": "other"}, "counterpart"),
        ({"lq": "twice"}, "have one name"),
    ],
)
def test_unusable_folders(folder_of: Make, tmp_path: Path, folders: dict[str, str], match: str) -> None:
    folder_of("lq", "a.png")
    folder_of("other", "b.png")
    folder_of("twice", "a.png", "a.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match=match):
        face_set("x", **{role: tmp_path / name for role, name in folders.items()})


def test_the_published_sizes() -> None:
    # GFPGAN (arXiv 2101.04061), section 4.1; CodeFormer (arXiv 2206.11253), section 5.1.
    counts = {name: protocol.count for name, protocol in PROTOCOLS.items() if name not in ("bench", "ntire-rwfr")}
    assert counts == {
        "celeba-test": 3000,
        "lfw-test": 1711,
        "webphoto-test": 407,
        "wider-test": 970,
        "celebchild": 180,
    }
    assert all(PROTOCOLS[name].side == 512 for name in counts)
    assert [name for name, protocol in PROTOCOLS.items() if protocol.references] == ["celeba-test", "bench"]
    with pytest.raises(InvalidInputError, match="lfw-test"):
        protocol_of("lfw")


def test_a_protocol_finds_its_folders_and_says_what_differs(folder_of: Make, tmp_path: Path) -> None:
    for name in ("data/gt", "data/mild", "data/severe", "done/mild", "done/severe"):
        folder_of(name, "a.png", "b.png")
    bench = PROTOCOLS["bench"]
    sets = protocol_sets(bench, tmp_path / "data", restored=tmp_path / "done")
    assert [faces.title for faces in sets] == ["mild", "severe"]
    assert sets[1].faces[0].restored is not None and sets[1].faces[0].restored.parent == tmp_path / "done" / "severe"
    said = remarks(bench, sets, {128})
    assert len(said) == 3 and "2 faces were measured, the protocol has 166" in said[0] and "128 px" in said[2]
    assert remarks(PROTOCOLS["lfw-test"], [], {512}) == []


def test_a_set_without_references_may_lie_in_the_folder_itself(folder_of: Make, tmp_path: Path) -> None:
    folder_of("lfw", "a.png")
    assert not protocol_sets(PROTOCOLS["lfw-test"], tmp_path / "lfw")[0].has_references
    with pytest.raises(InvalidInputError, match="celeba_512_validation"):
        protocol_sets(PROTOCOLS["celeba-test"], tmp_path / "lfw")
