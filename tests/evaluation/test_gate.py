"""The challenge's gate and score by hand, and the files of scores."""

from pathlib import Path

import pytest

from prefrestore.errors import InvalidInputError
from prefrestore.evaluation.gate import judge, read_scores, sum_score, thresholds
from prefrestore.evaluation.protocols import PROTOCOLS

PARTS = {"clipiqa": 0.8, "maniqa": 0.6, "musiq": 75.0, "niqe": 4.0, "qalign": 4.5, "fid": 40.0}


def test_the_score_by_hand() -> None:
    assert sum_score(PARTS) == pytest.approx(0.8 + 0.6 + 0.75 + 0.6 + 0.9 + 0.6)
    # NIQE above 10 and FID above 100 add nothing, and take nothing away.
    assert sum_score(PARTS | {"niqe": 12.0, "fid": 130.0}) == pytest.approx(0.8 + 0.6 + 0.75 + 0.9)
    for name in PARTS:
        assert sum_score({key: value for key, value in PARTS.items() if key != name}) is None


def face(unlike: float | None, **given: float) -> dict[str, float | None]:
    scores = {"given_clipiqa": 0.8, "given_maniqa": 0.6, "given_musiq": 70.0, "given_niqe": 4.0, "given_qalign": 4.5}
    return {"unlike_input": unlike, **scores, **given}


def test_a_verdict_by_hand() -> None:
    sets = [[face(0.0), face(1.0)], [face(0.0, given_clipiqa=0.5)]]
    verdict = judge(sets, 40.0, allowed=1)
    assert (verdict.measured, verdict.under, verdict.passes) == (3, 1, True)
    assert verdict.parts["clipiqa"] == pytest.approx(0.7) and verdict.parts["musiq"] == 70
    assert verdict.score == pytest.approx(0.7 + 0.6 + 0.7 + 0.6 + 0.9 + 0.6) and not verdict.lacking
    assert "1 of 3 faces" in verdict.sentence("x") and "4.1000" in verdict.sentence("x")
    assert judge(sets, 40.0, allowed=0).passes is False
    # Its own MUSIQ goes before a given one; without FID there is no score.
    own = judge([[face(0.0, musiq=50.0)]], None, allowed=10)
    assert own.parts["musiq"] == 50 and own.score is None and own.lacking == ("fid",)
    # One face without a likeness leaves the gate open, one without a score the score.
    some = judge([[face(None), face(0.0)]], 40.0, allowed=10)
    assert some.passes is None and some.score is not None
    assert judge([[face(0.0), {"unlike_input": 0.0}]], 40.0, allowed=10).score is None


def test_the_published_thresholds() -> None:
    # The evaluation program of the challenge's repository, and the report's number of faces: 450.
    protocol = PROTOCOLS["ntire-rwfr"]
    assert protocol.thresholds == {
        "CelebA": 0.5, "CelebChild-Test": 0.6, "LFW-Test": 0.6, "WebPhoto-Test": 0.25, "Wider-Test": 0.2
    }  # fmt: skip
    assert sum(protocol.counts.get(title, protocol.count) for title in protocol.sets) == 450 and protocol.allowed == 10


def test_thresholds_as_options() -> None:
    titles, known = ["a", "b"], {"a": 0.5, "b": 0.2}
    assert thresholds(titles, known, []) == known
    assert thresholds(titles, known, ["b=0.3"]) == {"a": 0.5, "b": 0.3}
    assert thresholds(titles, {}, ["0.4", "a=-0.1"]) == {"a": -0.1, "b": 0.4}
    for text, match in (("c=0.1", "names the set 'c'"), ("much", "not 'much'"), ("2", "-1 to 1")):
        with pytest.raises(InvalidInputError, match=match):
            thresholds(titles, known, [text])


def test_files_of_scores(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    # As the challenge's program writes them.
    path.write_text("Filename,CLIP_IQA,Dataset,ID_Sim,MANIQA,QALIGN\na.png,0.5,LFW-Test,0.9,0.6,\n")
    assert read_scores(path) == {("LFW-Test", "a"): {"given_clipiqa": 0.5, "given_maniqa": 0.6}}
    path.write_text("face,niqe\nsub/b,4.5\n")
    assert read_scores(path) == {("", "sub/b"): {"given_niqe": 4.5}}
    for text, match in (
        ("niqe\n4\n", "'face' or 'Filename'"),
        ("face,niqe\na,good\n", "line 2: a score is no number"),
        ("face,other\na,1\n", "none of the columns"),
    ):
        path.write_text(text)
        with pytest.raises(InvalidInputError, match=match):
            read_scores(path)
    with pytest.raises(InvalidInputError, match="absent.csv"):
        read_scores(tmp_path / "absent.csv")
