"""Strengths, choices and guesses: pictures are put together anew, and no model runs."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prefrestore.faces.blend import to_coded, to_linear


def pixels(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def patch(client: Any, id: str, **changes: Any) -> dict[str, Any]:
    answer = client.patch(f"/restorations/{id}", json={"faces": [{"index": 0, **changes}]})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


@pytest.fixture
def fresh(client: Any, aunt: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The shared restoration, with its face as it was restored."""
    patch(client, aunt["id"], strength=1.0, on=True, guess=0)
    yield client.get(f"/restorations/{aunt['id']}").json()
    patch(client, aunt["id"], strength=1.0, on=True, guess=0)


def test_a_strength_is_a_blend_in_linear_light_and_1_gives_the_first_bytes_back(
    client: Any, fresh: dict[str, Any], photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    id, model = fresh["id"], client.app.state.service.model
    monkeypatch.setattr(model, "pipeline", None)  # whatever runs it now fails
    first = client.get(f"/restorations/{id}/photo").content
    full, before = pixels(client.get(f"/restorations/{id}/photo")), np.asarray(Image.open(io.BytesIO(photo)))
    half = patch(client, id, strength=0.5)
    assert half["version"] == fresh["version"] + 1 and half["faces"][0]["strength"] == 0.5
    shown = pixels(client.get(f"/restorations/{id}/photo"))
    light = (to_linear(before / np.float32(255)) + to_linear(full / np.float32(255))) / 2
    assert np.abs(shown - to_coded(light) * 255).max() <= 1
    assert (shown != full).any() and (shown != before).any()
    assert client.get(f"/restorations/{id}/record").json()["faces"][0]["strength"] == 0.5
    patch(client, id, strength=0.0)
    assert client.get(f"/restorations/{id}/photo").content == photo
    patch(client, id, strength=1.0)
    assert client.get(f"/restorations/{id}/photo").content == first


def test_a_face_that_is_off_keeps_the_photo_s_bytes(client: Any, fresh: dict[str, Any], photo: bytes) -> None:
    id = fresh["id"]
    off = patch(client, id, on=False)
    assert off["faces"][0]["on"] is False
    assert client.get(f"/restorations/{id}/photo").content == photo
    assert client.get(f"/restorations/{id}/record").json()["faces"][0]["status"] == "skipped"
    patch(client, id, on=True)
    assert client.get(f"/restorations/{id}/photo").content != photo


@pytest.mark.parametrize("changes", [{}, {"strength": 0.3}, {"on": False}, {"guess": 2}, {"guess": 1, "strength": 0.7}])
def test_a_region_is_what_the_whole_picture_shows_there(
    client: Any, fresh: dict[str, Any], changes: dict[str, Any]
) -> None:
    id = fresh["id"]
    if changes:
        patch(client, id, **changes)
    x, y, width, height = fresh["faces"][0]["region"]
    whole = pixels(client.get(f"/restorations/{id}/photo")).astype(int)
    part = pixels(client.get(f"/restorations/{id}/faces/0/region")).astype(int)
    assert part.shape == (height, width, 3)
    assert np.abs(part - whole[y : y + height, x : x + width]).max() <= 1
    before = pixels(client.get(f"/restorations/{id}/faces/0/region?before=true"))
    original = pixels(client.get(f"/restorations/{id}/original"))
    assert (before == original[y : y + height, x : x + width]).all()
    small = pixels(client.get(f"/restorations/{id}/faces/0/region?side=32"))
    assert max(small.shape[:2]) == 32


def test_another_guess_is_what_its_seed_restores(client: Any, fresh: dict[str, Any], photo: bytes) -> None:
    guesses = fresh["faces"][0]["guesses"]
    assert [guess["seed"] for guess in guesses] == [3, 4, 5, 6, 7]
    # The other photo is restored as strongly as the rules say.
    chosen = patch(client, fresh["id"], guess=2, strength=fresh["faces"][0]["first_strength"])
    assert chosen["faces"][0]["similarity"] == guesses[2]["similarity"]
    mine = client.get(f"/restorations/{fresh['id']}/photo").content
    other = client.send(photo, options='{"seed": 5}', Prefer="wait")
    assert pixels(other).tolist() == np.asarray(Image.open(io.BytesIO(mine))).tolist()
    record = client.get(f"/restorations/{fresh['id']}/record").json()["faces"][0]
    assert record["made_with"]["seed"] == 5


def test_a_face_that_is_left_alone_for_its_likeness_is_restored_when_it_is_asked_for(
    client: Any, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefrestore.restoration.likeness.least_likeness", lambda quality: 2.0)
    document = client.restored(photo)
    id, face = document["id"], document["faces"][0]
    assert (face["status"], face["guesses"], document["outcome"]) == ("skipped", [], "unchanged")
    assert client.post(f"/restorations/{id}/faces/0/guesses", json={"seeds": [0]}).status_code == 202
    asked = client.settled(id)
    assert (asked["work"], asked["faces"][0]["strength"], len(asked["faces"][0]["guesses"])) == (None, 1.0, 1)
    assert client.post(f"/restorations/{id}/faces/0/uncertainty").status_code == 202
    assert client.settled(id)["faces"][0]["uncertainty"]["mean"] > 0


def test_crops(client: Any, fresh: dict[str, Any]) -> None:
    address = f"/restorations/{fresh['id']}/faces/0"
    before, after = pixels(client.get(f"{address}/before")), pixels(client.get(f"{address}/after"))
    assert before.shape == after.shape == (64, 64, 3) and (before != after).any()
    assert (pixels(client.get(f"{address}/after?guess=2")) != after).any()
    assert (pixels(client.get(f"{address}/after?strength=0")) == before).all()
    assert client.get(f"{address}/after?guess=9").status_code == 404


def test_the_uncertainty_is_mapped_when_it_is_asked_for(client: Any, aunt: dict[str, Any]) -> None:
    address = f"/restorations/{aunt['id']}/faces/0/uncertainty"
    missing = client.get(address)
    assert missing.status_code == 404 and "POST" in missing.json()["detail"]
    assert client.post(address).json()["work"]["kind"] == "uncertainty"
    assert client.settled(aunt["id"])["faces"][0]["uncertainty"]["mean"] > 0
    assert pixels(client.get(address)).shape == (64, 64, 3)


def test_a_map_can_be_asked_for_at_once(client: Any, photo: bytes) -> None:
    document = client.restored(photo, options='{"uncertainty": true, "samples": 2}')
    assert document["faces"][0]["uncertainty"]["mean"] > 0
    assert client.get(f"/restorations/{document['id']}/faces/0/uncertainty").status_code == 200


def test_a_face_that_was_left_alone_is_restored_by_a_guess(client: Any, photo: bytes) -> None:
    document = client.restored(photo, options='{"faces": []}')
    id, face = document["id"], document["faces"][0]
    assert (document["outcome"], face["status"], face["on"], face["guess"]) == ("unchanged", "skipped", False, None)
    assert face["reason"] in document["message"]
    assert client.get(f"/restorations/{id}/photo").content == photo
    refused = client.patch(f"/restorations/{id}", json={"faces": [{"index": 0, "on": True}]})
    assert refused.status_code == 422 and "guesses" in refused.json()["detail"]
    assert (
        client.post(f"/restorations/{id}/faces/0/guesses", json={"seeds": [0], "prompt": "A man."}).status_code == 202
    )
    face = client.settled(id)["faces"][0]
    assert (face["status"], face["on"], face["guess"], face["guesses"][0]["prompt"]) == ("restored", True, 0, "A man.")
    assert client.get(f"/restorations/{id}/photo").content != photo
    assert client.get(f"/restorations/{id}/record").json()["faces"][0]["status"] == "restored"


@pytest.mark.parametrize("options", [{"scale": 2}, {"aligned": True}, {"scale": 4, "seed": 1}])
def test_strengths_at_other_sizes(client: Any, photo: bytes, options: dict[str, Any]) -> None:
    document = client.restored(photo, options=json.dumps(options))
    id = document["id"]
    full = pixels(client.get(f"/restorations/{id}/photo")).astype(int)
    assert list(full.shape[1::-1]) == document["output"]["size"]
    patch(client, id, strength=0.0)
    nothing = pixels(client.get(f"/restorations/{id}/photo")).astype(int)
    assert nothing.shape == full.shape
    patch(client, id, strength=0.5)
    half = pixels(client.get(f"/restorations/{id}/photo")).astype(int)
    low, high = np.minimum(full, nothing) - 1, np.maximum(full, nothing) + 1
    assert ((low <= half) & (half <= high)).all() and (half != full).any() and (half != nothing).any()
    x, y, width, height = document["faces"][0]["region"]
    part = pixels(client.get(f"/restorations/{id}/faces/0/region?side=4000")).astype(int)
    assert np.abs(part - half[y : y + height, x : x + width]).max() <= 1


@pytest.mark.parametrize("mode", ["L", "I;16", "RGBA"])
def test_grey_deep_and_transparent_photos(client: Any, photo: bytes, mode: str) -> None:
    image = Image.open(io.BytesIO(photo)).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    out = io.BytesIO()
    image.save(out, "PNG")
    id = client.restored(out.getvalue())["id"]
    patch(client, id, strength=0.5)
    shown = Image.open(io.BytesIO(client.get(f"/restorations/{id}/photo").content))
    assert shown.mode == image.mode and shown.size == image.size
    for path in ("faces/0/region", "view/before", "view/after", "faces/0/after"):
        assert client.get(f"/restorations/{id}/{path}").status_code == 200


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"faces": [{"index": 7}]}, "1 faces"),
        ({"faces": [{"index": 0, "strength": 1.5}]}, "strength"),
        ({"faces": [{"index": 0, "guess": 99}]}, "guesses"),
        ({"faces": [{"index": 0, "colour": 1}]}, "colour"),
        ({}, "faces"),
    ],
)
def test_changes_that_are_none(client: Any, fresh: dict[str, Any], changes: Any, word: str) -> None:
    answer = client.patch(f"/restorations/{fresh['id']}", json=changes)
    assert answer.status_code == 422 and word in answer.json()["detail"]
    assert client.get(f"/restorations/{fresh['id']}").json()["version"] == fresh["version"]


def test_one_work_at_a_time_and_it_can_be_cancelled(
    serving: Callable[..., Any], settings: Any, photo: bytes, tmp_path: Path
) -> None:
    client = serving(replace(settings, folder=tmp_path / "own"))
    id = client.restored(photo)["id"]
    assert client.delete(f"/restorations/{id}/work").status_code == 404
    assert client.post(f"/restorations/{id}/faces/0/guesses", json={"seeds": list(range(8))}).status_code == 202
    assert client.post(f"/restorations/{id}/faces/0/guesses", json={}).status_code == 409
    assert client.delete(f"/restorations/{id}/work").status_code == 204
    assert client.settled(id)["work"] is None
    assert len(client.get(f"/restorations/{id}").json()["faces"][0]["guesses"]) < 9
    assert client.post(f"/restorations/{id}/faces/3/guesses", json={}).status_code == 404
