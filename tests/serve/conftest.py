"""A service with the tiny random model, and pictures to send it."""

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from prefrestore.serve.app import create_app
from prefrestore.serve.settings import Settings

API = "/api/v1"
ADDRESS = "http://127.0.0.1:8420"


@pytest.fixture(scope="session")
def portrait() -> NDArray[np.uint8]:
    """192 x 192 RGB with one blurred face of 45 px."""
    data = pytest.importorskip("skimage.data")
    whole = Image.fromarray(data.astronaut()).crop((96, 0, 352, 256))
    return np.asarray(whole.resize((48, 48), Image.Resampling.BOX).resize((192, 192), Image.Resampling.BICUBIC))


def encoded(pixels: NDArray[Any], kind: str = "PNG") -> bytes:
    """A picture as a file's bytes."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


@pytest.fixture(scope="session")
def photo(portrait: NDArray[np.uint8]) -> bytes:
    """The portrait as a PNG."""
    return encoded(portrait)


class Client:
    """The API, called like a program calls it."""

    def __init__(self, http: TestClient) -> None:
        self.http, self.app = http, http.app

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.http, name)
        return lambda path, **options: method(path if path in ("/", "/docs") else API + path, **options)

    def send(self, photo: bytes, name: str = "aunt.png", options: str | None = None, **headers: str) -> Any:
        """Upload a photo."""
        data = {} if options is None else {"options": options}
        return self.post("/restorations", files={"photo": (name, photo)}, data=data, headers=headers)

    def restored(self, photo: bytes, name: str = "aunt.png", options: str | None = None) -> dict[str, Any]:
        """Upload a photo, wait, and return the document."""
        answer = self.send(photo, name, options, Prefer="wait")
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = self.http.get(answer.headers["location"]).json()
        return document

    def settled(self, id: str) -> dict[str, Any]:
        """The document, once no job is about it: the stream of its events ends then, and no work is left."""
        service = self.app.state.service  # type: ignore[attr-defined]
        while (job := service.jobs.find(id)) is not None:
            job.done.result(timeout=120)
        document: dict[str, Any] = self.get(f"/restorations/{id}").json()
        return document


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a service of the test's own."""
    return Settings(folder=tmp_path / "served", preset="tiny", device="cpu", example=False)


@pytest.fixture(scope="session")
def serving() -> Iterator[Callable[[Settings], Client]]:
    """Start a service; all of them end with the session."""
    running: list[TestClient] = []

    def start(settings: Settings) -> Client:
        http = TestClient(create_app(settings), base_url=ADDRESS, raise_server_exceptions=False)
        running.append(http.__enter__())
        client = Client(running[-1])
        # Random weights come from torch's one generator, so a test that also loads a model must not do so meanwhile.
        while client.app.state.service.model.state.status == "loading":  # type: ignore[attr-defined]
            time.sleep(0.01)
        return client

    yield start
    for http in running:
        http.__exit__(None, None, None)


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory, serving: Callable[[Settings], Client]) -> Client:
    """A running service that tests share."""
    folder = tmp_path_factory.mktemp("served")
    return serving(Settings(folder=folder, preset="tiny", device="cpu", example=False))


@pytest.fixture(scope="session")
def aunt(client: Client, photo: bytes) -> dict[str, Any]:
    """A restored photo of the shared service, with five guesses of its one face."""
    document = client.restored(photo, options='{"seed": 3}')
    assert client.post(f"/restorations/{document['id']}/faces/0/guesses", json={}).status_code == 202
    return client.settled(document["id"])
