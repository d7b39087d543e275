"""For everybody: without a mouse, on a phone, with a screen reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

Opened = Callable[..., "Page"]


def tab_to(page: Page, selector: str, most: int = 60) -> None:
    """Press Tab until the element has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement?.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} cannot be reached by Tab")


def test_by_keyboard_alone(restored: Opened) -> None:
    page = restored()
    tab_to(page, "#choose")
    with page.expect_file_chooser():
        page.keyboard.press("Enter")
    tab_to(page, "#queue .pick")
    page.keyboard.press("Enter")
    tab_to(page, "#stage")
    zoom = page.locator("[data-zoom]")
    whole = zoom.text_content()
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert zoom.text_content() != whole
    where = page.locator(".world").get_attribute("style")
    page.keyboard.press("ArrowRight")
    assert page.locator(".world").get_attribute("style") != where
    page.keyboard.press("0")
    assert zoom.text_content() == whole
    tab_to(page, ".outline")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "face-title"
    tab_to(page, "#face-on")
    page.keyboard.press("Space")
    page.get_by_text("after (turned off)").wait_for()
    page.keyboard.press("Space")
    page.get_by_text("after", exact=True).last.wait_for()
    tab_to(page, "#face-strength")
    strength = page.locator("#face output")
    start = strength.text_content() or ""
    page.keyboard.press("Home")
    expect(strength).to_have_text("0 %")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(strength).to_have_text("2 %")
    page.keyboard.press("Control+z")
    expect(strength).not_to_have_text("2 %")
    page.keyboard.press("Control+z")
    expect(strength).to_have_text(start)
    page.keyboard.press("Escape")
    assert page.locator("#face").is_hidden()
    assert page.evaluate("document.activeElement.matches('.outline')")
    tab_to(page, ".divider")
    start = int(page.locator(".divider").get_attribute("aria-valuenow") or "")
    page.keyboard.press("ArrowLeft")
    assert page.locator(".divider").get_attribute("aria-valuenow") == str(start - 2)


def test_a_phone(restored: Opened) -> None:
    page = restored(width=390, height=844, has_touch=True, is_mobile=True)
    for place in ("#/judge", "#/"):
        page.locator(f"nav a[href='{place}']").tap()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.locator(".outline").first.tap()
    page.locator("#face").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.get_by_role("button", name="Another guess").tap()
    page.locator(".guesses button").nth(3).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    small = page.evaluate(
        """() => [...document.querySelectorAll('button, .button, select, nav a')]
            .filter((one) => one.offsetParent && !one.matches('.pick, .outline'))
            .map((one) => [one.textContent.trim() || one.id, one.getBoundingClientRect()])
            .filter(([, box]) => box.height < 36 || box.width < 36).map(([name]) => name)"""
    )
    assert small == []  # CSS px: large enough for a finger


def test_the_docs_on_a_phone(open_page: Opened, faults: Callable[[Page], list[str]]) -> None:
    page = open_page("docs", width=390, height=844, is_mobile=True, bypass_csp=True)
    page.locator("#operations article").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert faults(page) == []


def test_two_fingers_zoom(restored: Opened) -> None:
    page = restored(width=390, height=844, has_touch=True, is_mobile=True)
    page.locator("#stage").scroll_into_view_if_needed()
    box = page.locator("#stage").bounding_box()
    assert box
    zoom = page.locator("[data-zoom]")
    whole = zoom.text_content()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        fingers = [{"x": px, "y": py, "id": number} for number, (px, py) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    touch("touchStart", (x - 20, y), (x + 20, y))
    for step in range(1, 6):
        touch("touchMove", (x - 20 - 10 * step, y), (x + 20 + 10 * step, y))
    touch("touchEnd")
    assert float((zoom.text_content() or "").split()[0]) > 2 * float((whole or "").split()[0])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(restored: Opened, faults: Callable[[Page], list[str]], scheme: str) -> None:
    page = restored(color_scheme=scheme, bypass_csp=True)  # axe is a script that the page's own policy forbids
    page.locator("#options > summary").click()
    page.get_by_text("Which faces are left alone").click()
    assert faults(page) == []
    page.locator(".outline").first.focus()
    page.keyboard.press("Enter")
    page.get_by_text("Draw it differently").click()
    if page.locator(".guesses button").count() < 2:
        page.get_by_role("button", name="Another guess").click()
        page.locator(".guesses button").nth(1).wait_for()
    assert faults(page) == []
    page.get_by_role("button", name="Remove").first.click()
    assert faults(page) == []


def test_the_chosen_colours_are_kept(open_page: Opened) -> None:
    page = open_page(color_scheme="light")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_label("Colours").select_option("dark")
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark
    page.get_by_label("Colours").select_option("")
    assert page.evaluate(ground) == light


def test_a_browser_without_the_token_is_asked_for_it(
    open_page: Opened, guarded: str, faults: Callable[[Page], list[str]]
) -> None:
    page = open_page(bypass_csp=True)
    page.goto(guarded)
    token = page.get_by_label("Token", exact=True)
    token.fill("wrong")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).not_to_be_empty()
    assert faults(page) == []
    token.fill("secret")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert page.evaluate("async () => (await fetch('/api/v1/restorations')).status") == 200


def test_a_service_that_ends_is_told_for_as_long_as_it_is_gone(open_page: Opened, tmp_path: Path, running: Any) -> None:
    page = open_page()
    page.clock.install()
    with running(tmp_path / "folder") as address:
        page.goto(address)
        page.locator("#nothing").wait_for()
    gone = page.locator("#alert")
    expect(gone).to_contain_text("does not answer")
    page.clock.fast_forward(60_000)
    expect(gone).to_contain_text("does not answer")
