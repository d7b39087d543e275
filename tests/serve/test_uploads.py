"""What is refused before anything is decoded. The model is not started: what is accepted waits."""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from prefrestore.serve.app import create_app
from prefrestore.serve.settings import Settings
from prefrestore.serve.store import safe_name

MOST = 50_000


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    """A service that only ever lets wait."""
    folder = tmp_path_factory.mktemp("served")
    chosen = Settings(folder=folder, preset="tiny", device="cpu", example=False, queue=1000, max_bytes=MOST)
    return TestClient(create_app(chosen), base_url="http://127.0.0.1:8420", raise_server_exceptions=False)


def kept(client: TestClient) -> int:
    folder = client.app.state.service.settings.folder  # type: ignore[attr-defined]
    left = [path for path in folder.iterdir() if path.name not in ("restorations", "judgements")]
    assert not left
    return len(list((folder / "restorations").iterdir()))


def png(width: int = 8, height: int = 8) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def refused(client: TestClient, status: int, *words: str, **sent: Any) -> None:
    before = kept(client)
    answer = client.post("/api/v1/restorations", **sent)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status and document["title"] and "\n" not in document["detail"]
    for word in words:
        assert word in document["detail"]
    assert kept(client) == before


def test_a_photo_waits_under_a_random_id(waiting: TestClient) -> None:
    answer = waiting.post("/api/v1/restorations", files={"photo": ("../../ab.png", png())})
    assert answer.status_code == 202
    document = answer.json()
    assert answer.headers["location"] == f"/api/v1/restorations/{document['id']}"
    assert (document["name"], document["status"], document["input"]["size"]) == ("ab.png", "queued", [8, 8])
    assert document["position"] >= 1


def test_too_many_bytes(waiting: TestClient) -> None:
    large = png() + bytes(MOST)
    refused(waiting, 413, "0.05 MB", files={"photo": ("a.png", large)})

    def chunks() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\n'
        for _ in range(100):
            yield bytes(10_000)

    # Without a length in advance: counted on the way.
    refused(waiting, 413, content=chunks(), headers={"content-type": "multipart/form-data; boundary=x"})


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (60_000, 3_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_seen_by_its_header(waiting: TestClient, width: int, height: int) -> None:
    refused(waiting, 422, "a.png", files={"photo": ("a.png", bomb(width, height))})


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"files": {"photo": ("a.png", b"no picture at all")}}, 422),
        ({"files": {"photo": ("a.png", b"")}}, 422),
        ({"files": {"photo": ("a.png", png()[:20])}}, 422),
        ({"files": {"other": ("a.png", png())}}, 422),
        ({"data": {"photo": "text"}, "files": {"x": ("a", b"1")}}, 422),
        ({"json": {"photo": 1}}, 415),
        ({"content": b"abc"}, 415),
        ({"content": b"abc", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"content": b"abc", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400),
        ({"files": [("photo", ("a.png", png())), ("photo", ("b.png", png()))]}, 400),
    ],
)
def test_what_is_no_upload(waiting: TestClient, sent: dict[str, Any], status: int) -> None:
    refused(waiting, status, **sent)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ("{", "JSON"),
        ("[]", "object"),
        ('{"step": 3}', "step"),
        ('{"steps": 0}', "steps"),
        ('{"steps": "3"}', "steps"),
        ('{"steps": 100000}', "steps"),
        ('{"seed": -1}', "seed"),
        ('{"seed": 1e400}', "seed"),
        ('{"fidelity": 2}', "fidelity"),
        ('{"fidelity": NaN}', "fidelity"),
        ('{"scale": 3}', "scale"),
        ('{"faces": [-1]}', "faces"),
        ('{"choice": "first"}', "samples"),
        ('{"prompt": "' + "a" * 501 + '"}', "prompt"),
    ],
)
def test_bad_options_are_told_by_name(waiting: TestClient, options: str, word: str) -> None:
    refused(waiting, 422, word, files={"photo": ("a.png", png())}, data={"options": options})


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", png()[:30], b"\xff\xd8\xff", b"GIF89a", b"RIFF", b"II*\0"]))
def test_random_photos_are_refused_or_wait(waiting: TestClient, tail: bytes, head: bytes) -> None:
    answer = waiting.post("/api/v1/restorations", files={"photo": ("a", head + tail)})
    assert answer.status_code in (202, 422)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
def test_random_bodies_are_refused(waiting: TestClient, body: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = waiting.post("/api/v1/restorations", content=b"--x\r\n" + body, headers=headers)
    assert answer.status_code in (400, 422)


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=300))
def test_names_are_never_paths(name: str) -> None:
    shown = safe_name(name)
    assert 0 < len(shown) <= 110 and shown not in (".", "..") and shown == safe_name(shown)
    assert not set(shown) & set('/\\<>:"|?*\0\n') and not shown.startswith(".")
    shown.encode()
    assert Path("/a", shown).parent == Path("/a")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("..", "photo"),
        ("", "photo"),
        (".png", "png"),
        ("/", "photo"),
        ("Großmutter 1923.JPG", "Großmutter 1923.JPG"),
        ("a" * 300 + ".jpg", "a" * 100 + ".jpg"),
        ("a\u202egpj.exe", "agpj.exe"),
    ],
)
def test_names(name: str, shown: str) -> None:
    assert safe_name(name) == shown
