"""Every state of the service's page as a picture, in light and dark, at 1280 and at 390 px, to be looked at.

    python tools/page_shots.py DIR --group GROUP.jpg --portrait OLD.jpg

It starts a service with an empty folder and drives Debian's chromium. What passes too quickly to be seen (the stages
of the queue) is told to the page by documents of this script; everything else is the service's own. The two pictures
of the README are DIR/example_face_light_wide.png and DIR/judge_light_wide.png, both of the example.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Route, sync_playwright

SIZES = {"wide": (1280, 900), "phone": (390, 844)}
PATIENCE = 600_000  # ms
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
STAGES = [
    {"status": "queued", "position": 3},
    {"status": "running", "position": 0, "progress": {"stage": "finding"}},
    {"status": "running", "position": 0, "progress": {"stage": "restoring", "face": 3, "faces": 7}},
    {"status": "running", "position": 0, "progress": {"stage": "writing", "faces": 7}},
    {"status": "failed", "message": "half.jpg: cannot be read: the file ends in the middle of the picture"},
    {"status": "failed", "message": "the service ended before this was finished: try it again", "interrupted": True},
    {"status": "done", "outcome": "no face", "message": "sky.jpg: no face was found", "faces": []},
]
NAMES = [
    "next.jpg",
    "aunt.jpg",
    "wedding.jpg",
    "school.jpg",
    "half.jpg",
    "grandfather and his sisters, 1912.tif",
    "sky.jpg",
]


@contextmanager
def serving(folder: Path, preset: str, *options: str, token: str = "") -> Iterator[str]:
    """The address of a service in a process of its own."""
    command = [sys.executable, "-m", "prefrestore.cli", "serve", "--port", "0", "--folder", str(folder)]
    command += ["--preset", preset, "--device", "cpu", *options]
    environment = os.environ | ({"PREFRESTORE_TOKEN": token} if token else {})
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    found = re.search(r"http://[^/]+:\d+/", process.stdout.readline())
    assert found, "the service did not start"
    try:
        yield found[0]
    finally:
        process.terminate()
        process.wait(timeout=60)


class Camera:
    """Takes a page in both colours and at both widths."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self.folder = page, folder

    def take(self, name: str, *sizes: str, whole: bool = False) -> None:
        """``whole``: all of a long page."""
        for size in sizes or ("wide",):
            self.page.set_viewport_size(dict(zip(("width", "height"), SIZES[size], strict=True)))  # type: ignore[arg-type]
            for colours in ("light", "dark"):
                self.page.emulate_media(color_scheme=colours)  # type: ignore[arg-type]
                self.page.mouse.move(0, 0)  # nothing looks as if it were about to be chosen
                self.page.wait_for_timeout(400)
                path = self.folder / f"{name}_{colours}_{size}.png"
                self.page.screenshot(path=path, full_page=whole or size == "phone")
        self.page.set_viewport_size({"width": 1280, "height": 900})
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()


def stages(page: Page, address: str, camera: Camera) -> None:
    """The queue in each of its stages."""
    with urllib.request.urlopen(f"{address}api/v1/restorations") as answer:
        known: dict[str, Any] = json.load(answer)["restorations"][-1]
    plain = known | {"faces": [], "outcome": None, "output": None, "work": None, "message": "", "example": False}
    documents = [
        plain | stage | {"id": f"{number:032x}", "name": name, "created": f"2100-01-0{number + 1}T00:00:00.000Z"}
        for number, (stage, name) in enumerate(zip(STAGES, NAMES, strict=True))
    ]
    told = "".join(f"event: restoration\ndata: {json.dumps(one)}\n\n" for one in [known, *documents])

    def picture(route: Route) -> None:
        route.continue_(url=re.sub(r"restorations/0{20}\w+", f"restorations/{known['id']}", route.request.url))

    page.route("**/api/v1/events", lambda route: route.fulfill(content_type="text/event-stream", body=told))
    page.route(re.compile(r"restorations/0{20}\w+/view"), picture)
    page.route("**/api/v1/restorations", lambda route: route.fulfill(json={"restorations": [known, *documents]}))
    page.goto(address)
    page.reload()
    page.locator("#queue li").nth(len(documents)).wait_for()
    page.get_by_role("button", name="wedding.jpg", exact=True).click()
    camera.take("queue", "wide", "phone")
    page.get_by_role("button", name="half.jpg", exact=True).click()
    camera.take("failed", "wide")
    page.get_by_role("button", name="sky.jpg", exact=True).click()
    page.locator(".divider").wait_for()
    camera.take("no_face", "wide")
    page.unroute_all()
    page.reload()


def restored(page: Page, path: Path, *, added: bool = False) -> None:
    """Add a photo, unless it is there already, and wait until it is done and shown."""
    if not added:
        page.locator("#files").set_input_files(path)
    row = page.locator("#queue li", has_text=path.name).last
    row.get_by_text("restored").wait_for()
    row.locator(".pick").click()
    page.locator(".divider").wait_for()
    page.wait_for_timeout(6000)  # what was told goes away


def faces(page: Page, camera: Camera, group: Path, portrait: Path) -> None:
    """A group photo, with a face that the rules leave alone, and a portrait."""
    page.locator("#files").set_input_files([group, portrait])
    page.get_by_role("button", name=f"Cancel {portrait.name}").click()
    camera.take("cancelled")
    restored(page, group, added=True)
    camera.take("group", "wide", "phone")
    page.locator(".outline").last.click()
    camera.take("group_face", "wide", "phone")
    page.get_by_role("button", name="Show in the photo").click()
    camera.take("group_zoomed")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Whole photo").click()
    alone = page.locator(".outline[aria-label*='left alone']")
    if alone.count():
        alone.first.focus()
        page.keyboard.press("Enter")
        camera.take("left_alone")
        page.get_by_role("button", name="Restore it anyway").click()
        page.locator("#face .warning").first.wait_for()
        camera.take("warning", "wide", "phone", whole=True)
    restored(page, portrait)
    page.locator(".outline").first.click()
    page.get_by_role("slider", name="Strength").fill("60")
    page.wait_for_timeout(3000)
    camera.take("face", "wide", "phone", whole=True)
    page.get_by_role("button", name="Where it guesses").click()
    page.locator("#face .map[src]").wait_for(state="visible")
    camera.take("map")
    page.get_by_role("button", name="Where it guesses").click()
    page.get_by_role("button", name="Another guess").click()
    page.locator("#face progress").wait_for(state="visible")
    camera.take("guessing")
    page.locator(".guesses button").nth(3).wait_for()
    page.locator(".guesses button").nth(2).click()
    page.locator("#face summary").click()
    camera.take("guesses", "wide", "phone", whole=True)
    page.locator("#face-on").click()
    page.get_by_text("after (turned off)").wait_for()
    camera.take("turned_off", whole=True)
    page.get_by_role("button", name="Undo").click()
    camera.take("undone")


def judging(page: Page, address: str, camera: Camera) -> None:
    """The second tab, from a pair to the fit, which has fewer steps here than the page asks for."""
    page.route("**/judgements/fit", lambda route: route.continue_(post_data='{"steps": 12}'))
    page.goto(f"{address}#/judge")
    left = page.get_by_role("button", name="Left is better").get_by_role("img")
    left.wait_for()
    page.wait_for_timeout(1500)
    camera.take("judge", "wide", "phone")
    for key in ("ArrowLeft", "t", "s", "ArrowRight", "ArrowLeft", "ArrowRight"):
        shown = left.get_attribute("src")
        page.keyboard.press(key)
        for _ in range(600):
            if left.get_attribute("src") != shown or not left.is_visible():
                break
            page.wait_for_timeout(100)
    camera.take("judged")
    page.get_by_role("button", name="Fit the scorer").click()
    camera.take("judge_fit_asked")
    page.get_by_role("dialog").get_by_role("button", name="Fit").click()
    page.get_by_text(re.compile(r"step \d+ of")).wait_for()
    camera.take("judge_fitting")
    page.get_by_text("Agrees after").wait_for()
    camera.take("judge_fitted", "wide", "phone")


def example(page: Page, address: str, camera: Camera) -> None:
    """From the first start to four guesses of the example's face."""
    camera.take("first_start", "wide", "phone")
    page.locator(".outline").first.wait_for()
    page.wait_for_timeout(6000)
    camera.take("example", "wide", "phone")
    page.locator(".outline").first.click()
    page.get_by_role("button", name="Another guess").click()
    page.locator(".guesses button").nth(3).wait_for()
    page.wait_for_timeout(6000)
    camera.take("example_face", "wide", "phone")


def rest(page: Page, address: str, camera: Camera) -> None:
    """What lies beside the way: the options, the docs, and the question before a photo is removed."""
    page.goto(address)
    page.locator("#options > summary").click()
    page.locator("#option-seed").wait_for()
    page.get_by_text("Which faces are left alone").click()
    camera.take("options", "wide", "phone", whole=True)
    page.goto(f"{address}docs")
    page.locator("#operations article").first.wait_for()
    camera.take("docs", "wide", "phone")
    page.goto(address)
    page.locator(".divider").wait_for()
    page.get_by_role("button", name="Remove").first.click()
    camera.take("remove", "wide", "phone")
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()


def guarded(page: Page, folder: Path, camera: Camera, portrait: Path) -> None:
    """A service that needs a token; empty, and with a face that random weights made unlike the person."""
    with serving(folder, "tiny", "--no-example", token="shots") as address:
        page.goto(f"{address}?token=shots")
        camera.take("empty", "wide", "phone")
        page.goto(f"{address}#/judge")
        page.get_by_text("There is nothing to learn from yet").wait_for()
        camera.take("judge_empty", "wide", "phone")
        page.goto(address)
        page.locator("#options > summary").click()
        page.get_by_label("Keep the likeness").uncheck()
        restored(page, portrait)
        page.locator(".outline").first.click()
        page.locator("#face .warning").first.wait_for()
        camera.take("unlike", "wide", "phone", whole=True)
        page.context.clear_cookies()
        page.goto(address)
        page.get_by_label("Token", exact=True).wait_for()
        camera.take("without_token", "wide", "phone")
        page.get_by_label("Token", exact=True).fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_role("dialog").get_by_role("alert").filter(has_text=re.compile(".")).wait_for()
        camera.take("wrong_token")


PARTS: dict[str, Callable[..., None]] = {"example": example, "judge": judging, "rest": rest, "queue": stages}


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--group", type=Path, required=True, help="a photo of some people, one of them cut by its edge")
    parser.add_argument("--portrait", type=Path, required=True, help="a portrait that is restored")
    parser.add_argument("--preset", default="compact")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    every = [*PARTS, "faces", "token"]
    parser.add_argument("--only", nargs="+", choices=every, default=every, help="these parts; judge needs example")
    given = parser.parse_args()
    chosen = given.only
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as kept, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=given.browser, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        camera = Camera(page, given.folder)
        if set(chosen) != {"token"}:
            with serving(Path(kept) / "one", given.preset) as address:
                page.goto(address)
                page.locator("#queue li").wait_for()
                for name, part in PARTS.items():
                    if name in chosen:
                        part(page, address, camera)
                    page.locator(".outline").first.wait_for(state="attached")
                if "faces" in chosen:
                    faces(page, camera, given.group, given.portrait)
            page.wait_for_timeout(2000)
            camera.take("service_gone", "wide", "phone")
        if "token" in chosen:
            guarded(page, Path(kept) / "two", camera, given.portrait)
        browser.close()


if __name__ == "__main__":
    main()
