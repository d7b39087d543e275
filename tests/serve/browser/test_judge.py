"""The second page: which is better?"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

Opened = Callable[..., "Page"]


def counts(page: Page) -> dict[str, Any]:
    return page.evaluate("async () => (await fetch('/api/v1/judgements')).json()")


def test_without_restorations_there_is_no_pair(open_page: Opened) -> None:
    page = open_page("#/judge")
    expect(page.locator("#judge .said")).not_to_have_text("Looking for a pair …")
    expect(page.locator("#judge .said")).not_to_be_empty()
    assert page.get_by_role("button", name="A tie").is_hidden()
    assert page.get_by_role("button", name="Fit the scorer").is_disabled()


def test_ten_pairs_are_judged_by_keys_and_the_scorer_is_fitted(restored: Opened) -> None:
    page = restored()
    for face in (1, 2):  # four guesses each are twelve pairs
        page.get_by_role("button", name=f"Face {face} of 2").click()
        page.get_by_role("button", name="Another guess").click()
        expect(page.locator(".guesses button")).to_have_count(4)
    page.get_by_role("link", name="Which is better?").click()
    page.get_by_label("Your name").fill("ann")
    page.locator("#judge h1").click()  # keys choose, but not while one writes
    left = page.get_by_role("button", name="Left is better").get_by_role("img")
    seen = set()
    keys = ["ArrowLeft", "ArrowRight", "t", "s", *["ArrowLeft", "ArrowRight"] * 4]
    for number, key in enumerate(keys, start=1):
        left.wait_for()
        shown = left.get_attribute("src")
        assert shown
        seen.add(shown)
        page.keyboard.press(key)
        if number < len(keys):
            expect(left).not_to_have_attribute("src", shown)
    assert len(seen) == 12
    counter = page.locator("#judge .sofar")
    expect(counter).to_contain_text("11 judged")
    expect(counter).to_be_in_viewport()  # while one judges
    now = counts(page)
    assert (now["count"], now["ties"], now["skipped"]) == (11, 1, 1)
    told = counter.text_content() or ""
    assert f"{now['missing']} more" in told

    with page.expect_download() as download:
        page.get_by_role("link", name="Download the judgements").click()
    archive = zipfile.ZipFile(download.value.path())
    (name,) = (name for name in archive.namelist() if name.endswith(".jsonl"))
    lines = [json.loads(line) for line in archive.read(name).decode().splitlines()]
    judged = [line for line in lines if line["choice"] != "skip"]
    assert len(judged) == 11 and {line["who"] for line in judged} == {"ann"}

    def shorter(route: Route) -> None:
        route.continue_(post_data=json.dumps({"steps": 3})) if route.request.method == "POST" else route.continue_()

    page.route("**/judgements/fit", shorter)  # 300 steps take minutes
    page.get_by_role("button", name="Fit the scorer").click()
    page.get_by_role("dialog").get_by_role("button", name="Fit").click()
    rows = page.locator("#judge table tr")
    rows.first.wait_for(timeout=300_000)
    fit = counts(page)["fit"]
    assert fit["status"] == "done"
    assert page.get_by_text(f"The scorer is {fit['scorer']} in the service's folder").is_visible()
    for row, value in zip(rows.all_text_contents(), (fit["before"], fit["after"]), strict=True):
        assert ("unknown" if value is None else f"{round(value * 100)}\N{NO-BREAK SPACE}%") in row


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(restored: Opened, faults: Callable[[Page], list[str]], scheme: str) -> None:
    page = restored(color_scheme=scheme, bypass_csp=True)  # axe is a script that the page's own policy forbids
    page.get_by_role("button", name="Face 1 of 2").click()
    if page.locator(".guesses button").count() < 2:
        page.get_by_role("button", name="Another guess").click()
        page.locator(".guesses button").nth(3).wait_for()
    page.get_by_role("link", name="Which is better?").click()
    page.get_by_role("button", name="Left is better").wait_for()
    assert faults(page) == []
