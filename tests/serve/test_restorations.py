"""Photos in, restorations out."""

import io
import json
import threading
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from prefrestore.cli import app
from prefrestore.restoration.options import RestoreOptions
from prefrestore.restoration.told import TOLD
from prefrestore.serve.jobs import Job
from prefrestore.serve.schemas import Options

SAME = [
    ({"seed": 5, "fidelity": 0.2, "scale": 2}, "--seed 5 --fidelity 0.2 --scale 2"),
    ({"faces": "all", "keep_likeness": False, "strength": 0.6}, "--faces all --no-keep-likeness --strength 0.6"),
    ({"strength": {"0": 0.4}, "format": "webp", "quality": 60}, "--strength 0:0.4 --format webp --quality 60"),
    ({"keep_likeness": False, "format": "jpg"}, "--no-keep-likeness --format jpg"),
    ({"min_face": 60}, "--min-face 60"),
    ({"sharp_enough": 0.01, "max_yaw": 80, "min_score": 0.2}, "--sharp-enough 0.01 --max-yaw 80 --min-score 0.2"),
    ({"aligned": True, "reference": True}, "--aligned --reference"),
    ({"samples": 2, "choice": "first", "steps": 3}, "--samples 2 --choose first --steps 3"),
]
LEFT_TO_THE_SERVICE = {"background", "batch_size", "max_pixels"}


def test_every_choice_of_the_command_line_is_offered() -> None:
    offered = {field.name for field in fields(RestoreOptions)} - LEFT_TO_THE_SERVICE
    assert set(Options.model_fields) == offered | {"format", "quality"} == set(TOLD)
    for name, field in Options.model_fields.items():
        assert field.description == TOLD[name].text
    usual = RestoreOptions()
    for name in ("min_face", "max_yaw", "sharp_enough"):
        assert TOLD[name].text.endswith(f"; {getattr(usual, name):g}.")


@pytest.mark.parametrize(
    ("name", "options", "arguments"),
    [("aunt.png", *one) for one in SAME] + [("aunt.jpg", *SAME[0]), ("aunt", *SAME[0])],
)
def test_the_same_photo_options_and_seed_give_the_bytes_of_restore(
    client: Any, photo: bytes, tmp_path: Path, name: str, options: dict[str, Any], arguments: str
) -> None:
    source = tmp_path / "in" / name
    source.parent.mkdir()
    source.write_bytes(photo)
    command = ["restore", str(source), "-o", str(tmp_path / "out"), "--preset", "tiny", "--device", "cpu"]
    ran = CliRunner().invoke(app, [*command, *arguments.split()])
    assert ran.exit_code == 0, ran.output
    (written,) = (path for path in (tmp_path / "out").iterdir() if path.suffix != ".json")
    answer = client.send(photo, name, json.dumps(options), Prefer="wait")
    assert answer.status_code == 200 and answer.headers["preference-applied"] == "wait"
    assert answer.content == written.read_bytes()
    id = answer.headers["location"].rpartition("/")[2]
    assert client.get(f"/restorations/{id}/photo").content == written.read_bytes()
    record, theirs = (
        client.get(f"/restorations/{id}/record").json(),
        json.loads(written.with_suffix(".json").read_text()),
    )
    assert theirs.pop("run")  # what the command line was asked for, for its --skip-existing
    assert record == theirs
    assert client.get(f"/restorations/{id}/original").content == photo


def test_a_queue_is_listed_newest_first_and_told_as_events(client: Any, aunt: dict[str, Any]) -> None:
    listed = client.get("/restorations").json()
    assert aunt["id"] in [one["id"] for one in listed["restorations"]]
    created = [one["created"] for one in listed["restorations"]]
    assert created == sorted(created, reverse=True)
    assert listed["queue"]["limit"] == 32
    text = client.get(f"/restorations/{aunt['id']}/events").text
    (event,) = [block for block in text.split("\n\n") if block]
    name, data = event.split("\n")
    assert name == "event: restoration" and json.loads(data.removeprefix("data: "))["id"] == aunt["id"]


def test_progress_goes_through_its_stages(client: Any, photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    service = client.app.state.service
    monkeypatch.setattr(service.broadcast, "publish", told.append)
    id = client.restored(photo)["id"]
    documents = [json.loads(event.data) for event in told if event.about == id]
    stages = [document["progress"]["stage"] for document in documents]
    assert list(dict.fromkeys(stages)) == ["waiting", "finding", "restoring", "writing", "done"]
    (drawn,) = [document["progress"] for document in documents if document["progress"]["stage"] == "restoring"][:1]
    assert (drawn["face"], drawn["faces"]) == (1, 1)
    assert [document["status"] for document in documents][-1] == "done"


@pytest.mark.parametrize("which", ["before", "after"])
def test_a_view_is_an_upright_jpeg(client: Any, portrait: Any, which: str) -> None:
    lying = Image.fromarray(portrait).crop((0, 0, 192, 150))
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # turn it to the right to see it upright
    lying.rotate(90, expand=True).save(out, "TIFF")
    lying.rotate(90, expand=True).save(out := io.BytesIO(), "WEBP", lossless=True, exif=exif.tobytes())
    id = client.restored(out.getvalue(), "turned.webp")["id"]
    assert client.get(f"/restorations/{id}").json()["input"]["size"] == [192, 150]
    shown = Image.open(io.BytesIO(client.get(f"/restorations/{id}/view/{which}").content))
    assert (shown.format, shown.size, dict(shown.getexif())) == ("JPEG", (192, 150), {})
    small = Image.open(io.BytesIO(client.get(f"/restorations/{id}/view/{which}?side=64").content))
    assert small.size == (64, 50)


def test_a_photo_without_a_face_and_one_that_is_damaged(client: Any, photo: bytes) -> None:
    out = io.BytesIO()
    Image.new("RGB", (40, 40)).save(out, "PNG")
    document = client.restored(out.getvalue(), "sky.png")
    assert (document["outcome"], document["message"]) == ("no face", "sky.png: no face was found")
    assert client.get(f"/restorations/{document['id']}/photo").content == out.getvalue()
    answer = client.send(photo[: len(photo) // 2], "half.png", Prefer="wait")
    assert answer.status_code == 422
    assert "half.png" in answer.json()["detail"] and "original" not in answer.json()["detail"]


def test_a_failed_one_can_be_tried_again(client: Any, photo: bytes) -> None:
    client.send(photo[: len(photo) // 2], "half.png", Prefer="wait")
    failed = next(one for one in client.get("/restorations").json()["restorations"] if one["status"] == "failed")
    assert client.get(f"/restorations/{failed['id']}/photo").status_code == 409
    assert client.post(f"/restorations/{failed['id']}/retry").status_code == 202
    assert client.settled(failed["id"])["status"] == "failed"
    done = client.restored(photo)["id"]
    assert client.post(f"/restorations/{done}/retry").status_code == 409


def test_a_zip_holds_pictures_and_records_by_their_names_and_nothing_leads_out(client: Any, photo: bytes) -> None:
    ids = [client.restored(photo, name)["id"] for name in ("../../a.png", "..\\A.png", "a.jpg")]
    answer = client.get("/restorations.zip", params={"id": ids})
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert sorted(names) == ["A-2.json", "A-2.png", "a-3.jpg", "a-3.json", "a.json", "a.png"]
    assert client.get("/restorations.zip", params={"id": ["ab" * 16]}).status_code == 404
    assert len(zipfile.ZipFile(io.BytesIO(client.get("/restorations.zip").content)).namelist()) >= 6


def test_what_is_removed_is_gone(client: Any, photo: bytes) -> None:
    id = client.restored(photo)["id"]
    folder = client.app.state.service.store.folder(id)
    assert folder.is_dir()
    assert client.delete(f"/restorations/{id}").status_code == 204
    assert not folder.exists()
    for path in ("", "/photo", "/record", "/events", "/view/after", "/faces/0/after"):
        answer = client.get(f"/restorations/{id}{path}")
        assert answer.status_code == 404 and answer.headers["content-type"] == "application/problem+json"
    assert client.delete(f"/restorations/{id}").status_code == 404


def test_a_running_one_is_cancelled_and_leaves_nothing(
    serving: Callable[..., Any], settings: Any, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serving(replace(settings, queue=2))
    service = client.app.state.service
    inside, go_on = threading.Event(), threading.Event()
    detect = service.model.detector.detect

    def slow(rgb: Any) -> Any:
        inside.set()
        assert go_on.wait(60)
        return detect(rgb)

    monkeypatch.setattr(service.model.detector, "detect", slow)
    running, waiting = (client.send(photo).json()["id"] for _ in range(2))
    assert inside.wait(60)
    full = client.send(photo)
    assert full.status_code == 429 and full.headers["retry-after"]
    assert client.get(f"/restorations/{running}").json()["position"] == 0
    assert client.get(f"/restorations/{waiting}").json()["position"] == 1
    assert client.get(f"/restorations/{running}/photo").status_code == 409
    assert client.send(photo, Prefer="wait").status_code == 429
    jobs = [service.jobs.find(id) for id in (running, waiting)]
    for id in (waiting, running):
        assert client.delete(f"/restorations/{id}").status_code == 204
    go_on.set()
    for job in jobs:
        job.done.result(timeout=60)
    assert not list((settings.folder / "restorations").iterdir())
    assert client.restored(photo)["status"] == "done"


def test_waiting_no_longer_than_preferred(client: Any, photo: bytes) -> None:
    service = client.app.state.service
    hold = threading.Event()
    with service.jobs.place():
        blocking = service.jobs.submit(Job("other", lambda job: hold.wait(60)))
    answer = client.send(photo, Prefer="respond-async, wait=1")
    hold.set()
    blocking.done.result(timeout=60)
    assert answer.status_code == 202 and "preference-applied" not in answer.headers
    assert client.settled(answer.json()["id"])["status"] == "done"
