"""Which is better? Blind pairs, choices that `prefrestore preference fit` reads, and a fit."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from prefrestore.preference.judgements import read_judgements


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, serving: Callable[..., Any], photo: bytes) -> Any:
    """A service with one restored photo and twelve judgements of it."""
    from prefrestore.serve.settings import Settings

    folder = tmp_path_factory.mktemp("judged")
    client = serving(Settings(folder=folder, preset="tiny", device="cpu", example=False))
    assert client.get("/judgements/next").json()["pair"] is None
    id = client.restored(photo)["id"]
    client.post(f"/restorations/{id}/faces/0/guesses", json={"seeds": [5, 6]})
    client.settled(id)
    choices = ["first", "second", "tie", "skip"] * 3
    for number, choice in enumerate(choices):
        pair = client.get("/judgements/next").json()
        answer = client.post("/judgements", json={"pair": pair["pair"], "choice": choice, "who": f"judge-{number % 2}"})
        assert answer.status_code == 201, answer.text
    return client, folder


def test_choices_are_counted_and_written_as_fit_reads_them(judged: Any) -> None:
    client, folder = judged
    state = client.get("/judgements").json()
    assert (state["count"], state["ties"], state["skipped"]) == (9, 3, 3)
    assert state["missing"] == state["enough"] - 9
    # Three guesses at two strengths are six pictures: fifteen pairs, of which twelve were shown.
    assert state["pairs_left"] == 3
    good, bad = read_judgements([folder / "judgements" / "judgements.jsonl"])
    assert len(good) == 9 and not bad
    assert {judgement.who for judgement in good} == {"judge-0", "judge-1"}
    assert len({judgement.group for judgement in good}) == 1
    entries = [json.loads(line) for line in (folder / "judgements" / "judgements.jsonl").read_text().splitlines()]
    for entry in entries:
        made = entry["made"]
        assert made["first"] != made["second"]
        assert {"seed", "strength", "preset", "weights"} <= set(made["first"])


def test_a_pair_is_blind_in_random_order_and_shows_what_was_made(judged: Any) -> None:
    client, _ = judged
    orders = set()
    for _ in range(40):
        pair = client.get("/judgements/next").json()
        assert set(pair) == {"pair", "first", "second", "before", "message"}
        service = client.app.state.service
        orders.add(service.judging._open[pair["pair"]])
    assert any((second, first) in orders for first, second in orders)
    shown = [client.http.get(pair[which]) for which in ("first", "second", "before")]
    assert all(answer.status_code == 200 for answer in shown)
    assert len({answer.content for answer in shown}) == 3
    assert {Image.open(io.BytesIO(answer.content)).size for answer in shown} == {(64, 64)}


def test_pictures_that_are_alike_are_asked_last(serving: Callable[..., Any], settings: Any, photo: bytes) -> None:
    client = serving(settings)
    id = client.restored(photo)["id"]
    client.post(f"/restorations/{id}/faces/0/guesses", json={"seeds": [5]})
    client.settled(id)
    crops = settings.folder / "restorations" / id / "faces" / "0"
    shutil.copyfile(crops / "guess-0.png", crops / "guess-1.png")
    alike = []
    for _ in range(6):  # two guesses at two strengths
        pair = client.get("/judgements/next").json()
        alike.append(client.http.get(pair["first"]).content == client.http.get(pair["second"]).content)
        client.post("/judgements", json={"pair": pair["pair"], "choice": "tie", "who": "a"})
    assert alike == [False] * 4 + [True] * 2


def test_a_pair_is_judged_once(judged: Any) -> None:
    client, _ = judged
    answer = client.post("/judgements", json={"pair": "ab" * 16, "choice": "first", "who": "a"})
    assert answer.status_code == 404 and answer.headers["content-type"] == "application/problem+json"


def test_judgements_go_elsewhere_as_a_zip_file(judged: Any, tmp_path: Path) -> None:
    client, _ = judged
    archive = zipfile.ZipFile(io.BytesIO(client.get("/judgements.zip").content))
    archive.extractall(tmp_path)
    assert len(read_judgements([tmp_path / "judgements.jsonl"])[0]) == client.get("/judgements").json()["count"]


def test_a_fit_tells_its_accuracy_on_what_was_held_out(judged: Any) -> None:
    client, folder = judged
    answer = client.post("/judgements/fit", json={"steps": 2, "held_out": 0.4})
    assert answer.status_code == 202 and answer.json()["of"] == 2
    assert client.post("/judgements/fit", json={}).status_code == 409
    assert client.delete("/judgements").status_code == 409
    client.app.state.service.jobs.find("fit").done.result(timeout=300)
    fit = client.get("/judgements/fit").json()
    assert fit["status"] == "done", fit
    assert fit["done"] == 2 and fit["train"] + fit["held_out"] == 9
    for share in (fit["before"], fit["after"]):
        assert share is None or 0 <= share <= 1
    assert (folder / fit["scorer"] / "config.json").is_file()
    assert client.get("/judgements").json()["fit"] == fit


def test_pictures_stay_when_their_photo_goes_and_go_with_the_judgements(
    serving: Callable[..., Any], settings: Any, photo: bytes
) -> None:
    client = serving(replace(settings, queue=3))
    id = client.restored(photo)["id"]
    pair = client.get("/judgements/next").json()["pair"]
    client.post("/judgements", json={"pair": pair, "choice": "first", "who": "a"})
    assert client.post("/judgements/fit", json={}).status_code == 409
    still_open = client.get("/judgements/next").json()["pair"]
    assert still_open is None  # one guess at two strengths is one pair
    assert client.delete(f"/restorations/{id}").status_code == 204
    assert len(read_judgements([settings.folder / "judgements/judgements.jsonl"])[0]) == 1
    assert client.delete("/judgements").status_code == 204
    assert client.get("/judgements").json()["count"] == 0
    assert not list((settings.folder / "judgements").iterdir())
