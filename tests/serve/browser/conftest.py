"""A real browser before a real service with the tiny pipeline (random weights); both skipped where they are missing.

The page's policy forbids the browser to evaluate texts, so Playwright's wait_for_function cannot be used on it.
"""

from __future__ import annotations

import io
import json
import shutil
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
PATIENCE = 60_000  # ms; the machines that run the tests are slow
START = 300  # s, for loading the model on such a machine


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for one module: the loop that it runs on must be gone before other tests start theirs."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no tests in a browser")
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no chromium on this machine: no tests in a browser")
    playwright.expect.set_options(timeout=PATIENCE)
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=found, headless=True, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def photo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two faces, badly degraded: scikit-image's astronaut (NASA, public domain) beside its mirror image."""
    data = pytest.importorskip("skimage.data", reason="the photo of the tests comes with scikit-image")
    half = data.astronaut()[:320, 60:380]
    both = np.concatenate([half, half[:, ::-1]], axis=1)
    small = cv2.resize(cv2.GaussianBlur(both, (0, 0), 3), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(0).normal(0, 8, small.shape)
    path = tmp_path_factory.mktemp("photos") / "two.png"
    Image.fromarray((small + noise).clip(0, 255).astype(np.uint8)).save(path)
    return path


@contextmanager
def started_in(folder: Path, **more: Any) -> Iterator[str]:
    """The address of a service in a thread, whose model is there."""
    uvicorn = pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    from prefrestore.serve.app import create_app
    from prefrestore.serve.settings import Settings

    app = create_app(Settings(folder=folder, preset="tiny", device="cpu", example=False, **more))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        started = time.monotonic()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        while not server.started or not model_is_ready(address):
            assert thread.is_alive() and time.monotonic() - started < START, "the service did not start"
            time.sleep(0.1)
        yield address
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="session")
def running() -> Callable[..., Any]:
    """Start a service, as a context manager: see `started_in`."""
    return started_in


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service of its own, one a module; it starts empty."""
    with started_in(tmp_path_factory.mktemp("serve") / "folder") as address:
        yield address


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """The address of a service that needs the token ``secret``."""
    with started_in(tmp_path / "folder", token="secret") as address:
        yield address


def model_is_ready(address: str) -> bool:
    with urllib.request.urlopen(f"{address}/api/v1/health", timeout=30) as answer:
        return bool(json.load(answer)["model"] == "ready")


@pytest.fixture
def open_page(browser: Browser, service: str) -> Iterator[Callable[..., Page]]:
    """Open the page in a window of its own; what its console calls an error fails the test."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def opened(at: str = "", *, width: int = 1280, height: int = 900, **more: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True, **more)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        # Choosers are caught from here on: asked for just before a key is pressed, it would at times be too late.
        page.on("filechooser", lambda chooser: None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        # An answer such as 422 is told on the page, and by the browser in its console, too.
        told = lambda said: said.type == "error" and "Failed to load resource" not in said.text  # noqa: E731
        page.on("console", lambda said: errors.append(said.text) if told(said) else None)
        page.goto(f"{service}/{at}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def restored(open_page: Callable[..., Page], photo_file: Path) -> Callable[..., Page]:
    """A page whose oldest photo is restored and shown; what earlier tests of the module left is used again."""

    def made(**more: Any) -> Page:
        page = open_page(**more)
        listed = "async () => (await (await fetch('/api/v1/restorations')).json()).restorations.length"
        if page.evaluate(listed) == 0:
            page.locator("#files").set_input_files(photo_file)
        page.locator("#queue .state", has_text="restored").first.wait_for()
        page.locator("#queue .pick").first.click()
        page.locator(".outline").first.wait_for()
        page.locator(".divider").wait_for()
        return page

    return made


@pytest.fixture(scope="session")
def pixels() -> Callable[..., Any]:
    """What an element looks like, or a part of it: (page, selector, (x, y, w, h) of the window) -> H x W x 3."""

    def seen(page: Page, place: str, part: dict[str, float] | None = None) -> Any:
        shot = page.screenshot(clip=part) if part else page.locator(place).first.screenshot()  # type: ignore[arg-type]
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)

    return seen


@pytest.fixture(scope="session")
def faults() -> Callable[[Page], list[str]]:
    """What axe finds on a page that is serious or worse."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

    def found(page: Page) -> list[str]:
        said: list[dict[str, Any]] = axe.Axe().run(page).response["violations"]
        return [
            f"{fault['id']}: {fault['help']}: {[node['target'] for node in fault['nodes']]}"
            for fault in said
            if fault["impact"] in ("serious", "critical")
        ]

    return found
