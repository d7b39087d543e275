"""What captions say of faces, as classes, and sentences made of classes."""

import numpy as np
import pytest

from prefrestore.data.attributes import CLASSES, attributes_of, phrase


def test_rows_become_classes() -> None:
    row = {
        "id": "a", "gender": "girl", "age": "baby", "hair": "short light brown hair", "facial_hair": "goatee",
        "glasses": "eyeglasses", "expression": "frown", "headwear": "crown of thorns", "pose": "turned left",
    }  # fmt: skip
    assert attributes_of(row) == {
        "glasses": "glasses", "facial_hair": "beard", "expression": "serious", "age": "child", "hair": "fair",
        "headwear": "headwear", "gender": "woman", "pose": "left",
    }  # fmt: skip


def test_what_has_no_class_is_left_out() -> None:
    assert attributes_of({"gender": "person", "hair": "bright blue", "glasses": None, "expression": "tongue out"}) == {}


@pytest.mark.parametrize("seed", range(40))
def test_sentences_say_nothing_that_is_not_so(seed: int) -> None:
    rng = np.random.default_rng(seed)
    row = {name: str(rng.choice(classes)) for name, classes in CLASSES.items() if rng.random() < 0.7}
    row |= {} if row else {"glasses": "none"}
    text = phrase(row, rng).lower()
    assert text.strip(" .,")
    if "glasses" in text:
        denied = "no glasses" in text or "without glasses" in text
        assert denied == (row["glasses"] == "none")
    if any(word in text for word in ("young", "old", "elderly", "girl", "boy", "child", "middle-aged")):
        assert "age" in row
    if "woman" in text or "girl" in text:
        assert row["gender"] == "woman"
    if "smil" in text and "not smiling" not in text:
        assert row["expression"] in ("smile", "broad smile")


def test_one_face_is_said_in_many_ways_and_partly() -> None:
    row = {"glasses": "glasses", "expression": "smile", "age": "elderly", "gender": "man", "hair": "grey"}
    texts = {phrase(row, np.random.default_rng(seed)) for seed in range(60)}
    assert len(texts) > 30
    assert any("glasses" not in text.lower() for text in texts)
    assert all(phrase(row, np.random.default_rng(k), keep=1.0).lower().count("glasses") == 1 for k in range(10))
