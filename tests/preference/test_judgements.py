"""Judgements: what is read, what is refused and where it says the fault is, and what is held out."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prefrestore.errors import InvalidInputError
from prefrestore.preference.judgements import Judgement, hold_out, read_judgements


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, one broken and one oblong file."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    Image.new("RGB", (64, 32)).save(tmp_path / "oblong.png")
    return tmp_path


GOOD = {"first": "a.png", "second": "b.png", "choice": "second", "who": "R1", "when": "2026-03-01T10:00:00Z"}


def write(folder: Path, *lines: str) -> Path:
    path = folder / "judgements.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_line_is_read_and_paths_are_relative_to_the_file(folder: Path) -> None:
    (folder / "deeper").mkdir()
    path = folder / "deeper" / "j.jsonl"
    path.write_text("\n" + json.dumps(GOOD | {"first": "../a.png", "second": "../b.png", "group": "p1"}) + "\n\n")
    (judgement,), bad = read_judgements([path])
    assert (judgement.first, judgement.second) == ((folder / "a.png").resolve(), (folder / "b.png").resolve())
    assert (judgement.preference, judgement.who, judgement.group, bad) == (0.0, "R1", "p1", [])
    assert judgement.place == f"{path}, line 2"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "this is no JSON"),
        ("[1, 2]", "a judgement is a JSON object"),
        (json.dumps(GOOD | {"choice": "left"}), "not 'left'"),
        (json.dumps(GOOD | {"second": "gone.png"}), "gone.png is missing"),
        (json.dumps(GOOD | {"second": "broken.png"}), "cannot read .*broken.png"),
        (json.dumps(GOOD | {"second": "oblong.png"}), "an aligned face is square"),
        (json.dumps(GOOD | {"second": "a.png"}), "both pictures are"),
        (json.dumps(GOOD | {"when": "yesterday"}), "not 'yesterday'"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "who"}), "'who' is missing"),
        (json.dumps(GOOD | {"first": 3}), "'first' is missing or no text"),
        (json.dumps(GOOD | {"group": 3}), "'group' is missing or no text"),
    ],
)
def test_a_bad_line_is_named_or_left_out_and_counted(folder: Path, line: str, message: str) -> None:
    path = write(folder, json.dumps(GOOD), line)
    with pytest.raises(InvalidInputError, match=rf"judgements.jsonl, line 2: .*{message}"):
        read_judgements([path])
    good, bad = read_judgements([path], skip_bad=True)
    assert len(good) == 1 and len(bad) == 1 and "line 2" in bad[0]


def test_nothing_to_read_is_an_error_even_when_bad_lines_are_skipped(folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_judgements([folder / "none.jsonl"])
    with pytest.raises(InvalidInputError, match="no usable judgement"):
        read_judgements([write(folder, "{")], skip_bad=True)


def judged(first: str, second: str, who: str = "R1", group: str | None = None) -> Judgement:
    return Judgement(
        first=Path(first), second=Path(second), choice="first", who=who, when="2026-03-01", group=group, place=""
    )


def pictures(judgements: tuple[Judgement, ...]) -> set[Path]:
    return {path for judgement in judgements for path in (judgement.first, judgement.second)}


def test_pairs_that_share_a_picture_stay_together() -> None:
    chain = [judged(f"{face}{i}", f"{face}{i + 1}") for face in "abcdefgh" for i in range(3)]
    for seed in range(5):
        split = hold_out(chain, 0.25, seed=seed)
        assert "picture" in split.rule
        assert len(split.held_out) == 6 and len(split.train) == 18
        assert not pictures(split.train) & pictures(split.held_out)


def test_a_group_stays_together() -> None:
    pairs = [judged(f"{i}x", f"{i}y", group=f"person {i // 4}") for i in range(16)]
    split = hold_out(pairs, 0.25)
    assert {one.group for one in split.held_out} & {one.group for one in split.train} == set()
    assert len(split.held_out) == 4


@pytest.mark.parametrize(
    ("judge", "rule"), [(lambda i: f"R{i % 4}", "by judge"), (lambda i: "R1", "by pair")], ids=["judges", "one judge"]
)
def test_judges_then_pairs_are_held_out_when_everything_is_linked(judge: Callable[[int], str], rule: str) -> None:
    linked = [judged("same", f"other{i}", judge(i)) for i in range(12)]
    split = hold_out(linked, 0.25)
    assert split.rule.startswith(rule) and len(split.held_out) == 3
    if rule == "by judge":
        assert not {one.who for one in split.train} & {one.who for one in split.held_out}


def test_something_is_held_out_and_something_is_left_even_when_groups_are_large() -> None:
    pairs = [judged(f"{i}x", f"{i}y", group=f"person {i // 5}") for i in range(10)]
    split = hold_out(pairs, 0.1)
    assert len(split.held_out) == 5 and len(split.train) == 5


def test_something_is_left_to_train_on_whatever_the_share() -> None:
    split = hold_out([judged("a1", "a2"), judged("b1", "b2")], 0.99)
    assert len(split.train) == len(split.held_out) == 1


def test_holding_out_needs_two_judgements_and_a_share() -> None:
    with pytest.raises(InvalidInputError, match="at least two"):
        hold_out([judged("a", "b")])
    with pytest.raises(InvalidInputError, match="between 0 and 1"):
        hold_out([judged("a", "b"), judged("c", "d")], 1.0)
