"""The field's named test sets, as their users download them, and this project's own.

None of them comes with the package. The counts are those of the papers; a folder that holds another number of
pictures is measured all the same, and the report says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from prefrestore.errors import InvalidInputError
from prefrestore.evaluation.folders import MeasuredSet, face_set

_GFPGAN = "Wang et al., GFPGAN (CVPR 2021, arXiv 2101.04061), section 4.1"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One named test set.

    Args:
        title: how papers call it.
        source: where it was introduced.
        side: of its pictures, in pixels; all are aligned faces.
        count: pictures to be expected, of each set; counts: of those sets that have another number.
        sets: title of each set -> subfolders tried in turn for its LQ faces ("" is the folder itself).
        references: subfolders tried in turn for the ground truth; none for a set without.
        thresholds: by set, the likeness to the input below which a face counts as unlike it.
        allowed: so many such faces may be, of all sets together; None where there is no such rule.
        note: what a reader of its figures must know.
    """

    title: str
    source: str
    side: int
    count: int
    sets: dict[str, tuple[str, ...]]
    references: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    allowed: int | None = None
    note: str = ""


# By set: the likeness to the input (AdaFace) that the challenge's evaluation program asks for.
_NTIRE = {"CelebA": 0.5, "CelebChild-Test": 0.6, "LFW-Test": 0.6, "WebPhoto-Test": 0.25, "Wider-Test": 0.2}

PROTOCOLS = {
    "celeba-test": Protocol(
        title="CelebA-Test",
        source=f"{_GFPGAN}: pictures of CelebA-HQ's test partition with synthetic degradation",
        side=512,
        count=3000,
        sets={"CelebA-Test": ("lq", "celeba_512_validation_lq", "self_celeba_512_v2")},
        references=("gt", "hq", "celeba_512_validation"),
        note="several degraded copies of it are in use (GFPGAN's and DAEFR's among them): say which one was measured.",
    ),
    "lfw-test": Protocol(
        title="LFW-Test",
        source=f"{_GFPGAN}: the first picture of each person in LFW's validation partition",
        side=512,
        count=1711,
        sets={"LFW-Test": ("lq", "lfw_cropped_faces", "")},
    ),
    "webphoto-test": Protocol(
        title="WebPhoto-Test",
        source=f"{_GFPGAN}: faces out of old and modern photos of the internet",
        side=512,
        count=407,
        sets={"WebPhoto-Test": ("lq", "WebPhoto-Test", "")},
        note="some repositories list 469 pictures under this name.",
    ),
    "wider-test": Protocol(
        title="WIDER-Test",
        source="Zhou et al., CodeFormer (NeurIPS 2022, arXiv 2206.11253), section 5.1: degraded faces of WIDER",
        side=512,
        count=970,
        sets={"WIDER-Test": ("lq", "Wider-Test", "")},
    ),
    "celebchild": Protocol(
        title="CelebChild-Test",
        source=f"{_GFPGAN}: celebrities as children, from the internet",
        side=512,
        count=180,
        sets={"CelebChild-Test": ("lq", "CelebChild-Test", "")},
    ),
    "ntire-rwfr": Protocol(
        title="NTIRE 2026 real-world face restoration, test",
        source="Wang et al., NTIRE 2026 challenge (CVPRW 2026, arXiv 2604.10532) and its evaluation program",
        side=512,
        count=100,
        counts={"CelebChild-Test": 50},
        sets={name: (f"test/{name}", name) for name in _NTIRE},
        thresholds=_NTIRE,
        allowed=10,
        note="the challenge aligns by five points of its own table, this program by those that YuNet finds.",
    ),
    "bench": Protocol(
        title="prefrestore bench",
        source="docs/benchmarks.md of this project: faces at 256 px and two seeded degradations of each",
        side=256,
        count=166,
        sets={"mild": ("mild",), "severe": ("severe",)},
        references=("gt",),
    ),
}


def protocol_of(name: str) -> Protocol:
    """The protocol of a name; InvalidInputError if there is none."""
    if name not in PROTOCOLS:
        raise InvalidInputError(f"there is no protocol '{name}'; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def protocol_sets(
    protocol: Protocol, data: Path, *, restored: Path | None = None, limit: int | None = None
) -> list[MeasuredSet]:
    """The face sets of a protocol in the folder `data`.

    Args:
        restored: measure these pictures in place of restoring; one subfolder a set where the protocol has several.

    Raises:
        InvalidInputError: a folder is missing, or holds nothing to measure.
    """
    reference = _first(data, protocol.references) if protocol.references else None
    sets = []
    for title, places in protocol.sets.items():
        done = restored / title if restored is not None and len(protocol.sets) > 1 else restored
        sets.append(face_set(title, lq=_first(data, places), restored=done, reference=reference, limit=limit))
    return sets


def remarks(protocol: Protocol, sets: list[MeasuredSet], sides: set[int], limit: int | None = None) -> list[str]:
    """What differs between the protocol and what was measured, one sentence each."""
    said = [protocol.note] if protocol.note else []
    for faces in sets:
        count, wanted = len(faces.faces), protocol.counts.get(faces.title, protocol.count)
        if count != wanted:
            why = " (a sample was asked for)" if limit is not None and count == limit else ""
            said.append(f"{faces.title}: {count} faces were measured, the protocol has {wanted}{why}.")
    other = sorted(sides - {protocol.side})
    if other:
        said.append(f"pictures of {', '.join(map(str, other))} px were read, the protocol's have {protocol.side} px.")
    return said


def _first(data: Path, places: tuple[str, ...]) -> Path:
    for place in places:
        if (data / place).is_dir():
            return data / place
    wanted = " or ".join(place or "the folder itself" for place in places)
    raise InvalidInputError(f"{data} does not hold what the protocol needs: {wanted}.")
