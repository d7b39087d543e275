"""The queue beside the photo: what each row says, and what becomes of the whole of it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Page

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

Opened = Callable[..., "Page"]


def test_one_download_and_all_as_a_zip(restored: Opened, photo_file: Path, tmp_path: Path) -> None:
    page = restored()
    with page.expect_download() as one:
        page.get_by_role("link", name="Download", exact=True).click()
    one.value.save_as(tmp_path / "one.png")
    assert Image.open(tmp_path / "one.png").size == Image.open(photo_file).size
    with page.expect_download() as record:
        page.get_by_role("link", name="Record").click()
    assert json.loads(Path(record.value.path()).read_text())["faces"]
    with page.expect_download() as everything:
        page.get_by_role("link", name="Download all").click()
    names = zipfile.ZipFile(everything.value.path()).namelist()
    assert any(name.endswith(".png") for name in names) and any(name.endswith(".json") for name in names)


def test_a_file_that_is_no_photo_is_told_and_the_others_go_on(
    open_page: Opened, photo_file: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "notes.jpg"
    bad.write_text("no picture")
    page = open_page()
    page.locator("#files").set_input_files([bad, photo_file])
    told = page.locator("#queue li", has_text="notes.jpg").locator(".state.bad")
    told.wait_for()
    assert told.text_content()
    page.locator("#queue li:not(:has-text('notes.jpg'))").last.get_by_text("2 of 2 faces restored").wait_for()
    errors = page.get_by_role("button", name="Remove notes.jpg")
    errors.click()
    told.wait_for(state="detached")


def test_where_a_small_picture_is_missing_no_broken_one_is_shown(restored: Opened) -> None:
    page = restored()
    page.route("**/view/before?side=128", lambda route: route.abort())
    with page.expect_request("**/view/before?side=128"):
        page.reload()
    row = page.locator("#queue li").first
    expect(row.locator(".blank")).to_have_count(1)
    expect(row.locator("img")).to_have_count(0)


def test_only_what_is_on_its_way_has_a_bar(open_page: Opened, photo_file: Path) -> None:
    page = open_page()
    # An upload that never ends.
    page.route("**/api/v1/restorations", lambda route: route.request.method == "POST" or route.continue_())
    page.locator("#files").set_input_files([photo_file] * 4)
    for state, rows, bars in (("sending", 2, 2), ("waiting to be sent", 2, 0)):
        row = page.locator("#queue li", has=page.get_by_text(state, exact=True))
        expect(row).to_have_count(rows)
        expect(row.get_by_role("progressbar")).to_have_count(bars)
