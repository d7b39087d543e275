"""The first page, by mouse: from a photo to a download."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Page

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

Opened = Callable[..., "Page"]
Seen = Callable[..., Any]


def documents(page: Page) -> list[dict[str, Any]]:
    """What the service holds, the oldest first."""
    listed = page.evaluate("async () => (await (await fetch('/api/v1/restorations')).json()).restorations")
    return list(reversed(listed))


def changed(page: Page, version: int) -> dict[str, Any]:
    """The first document, once its picture was changed so often."""
    for _ in range(600):
        document = documents(page)[0]
        if document["version"] >= version:
            return document
        page.wait_for_timeout(100)
    raise AssertionError(f"the picture has version {document['version']}, not {version}")


def show_after(page: Page) -> None:
    """Move the divider away, so that only the restored photo is seen; without the outlines."""
    page.locator(".divider").press("Home")
    if page.locator("[data-do=outlines]").get_attribute("aria-pressed") == "true":
        page.locator("[data-do=outlines]").click()


def test_a_photo_is_sent_and_restored(open_page: Opened, photo_file: Path) -> None:
    page = open_page()
    assert page.locator("#nothing").is_visible()
    page.locator("#files").set_input_files(photo_file)
    state = page.locator("#queue .state", has_text="2 of 2 faces restored")
    state.wait_for()
    assert page.locator(".outline").count() == 2
    assert page.locator("#shown-title").text_content() == "two.png"
    page.locator(".divider").wait_for()
    line = page.locator(".divider").bounding_box()
    assert line
    middle = line["x"] + line["width"] / 2
    boxes = [page.locator(".outline").nth(number).bounding_box() for number in range(2)]
    assert any(box["x"] < middle < box["x"] + box["width"] for box in boxes if box)  # what was done is seen at once
    page.reload()
    state.wait_for()


def test_the_divider_moves_by_mouse_and_shows_both(restored: Opened, pixels: Seen) -> None:
    page = restored()
    page.locator(".world img[src*=after]").wait_for()
    show_after(page)
    after = pixels(page, "#stage")
    page.locator(".divider").press("End")
    before = pixels(page, "#stage")
    assert np.abs(after - before).max() > 20
    box = page.locator("#stage").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 40, steps=5)
    page.mouse.up()
    assert page.locator(".divider").get_attribute("aria-valuenow") == "25"


def test_no_half_is_empty_before_the_restored_picture_is_there(restored: Opened) -> None:
    page = restored()
    page.route("**/view/after*", lambda route: None)
    page.reload()
    page.locator(".outline").first.wait_for()
    assert page.locator(".divider").is_hidden()
    expect(page.get_by_alt_text("two.png, before")).to_have_css("clip-path", "inset(0px)")


def test_zoom_and_pan(restored: Opened, pixels: Seen) -> None:
    page = restored()
    zoom = page.locator("[data-zoom]")
    whole, divider = zoom.text_content(), page.locator(".divider").get_attribute("aria-valuenow")
    page.get_by_role("button", name="Zoom in").click()
    assert zoom.text_content() != whole
    page.locator("#stage").hover()
    for _ in range(6):
        page.mouse.wheel(0, -200)
    before = pixels(page, "#stage")
    box = page.locator("#stage").bounding_box()
    assert box
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 120, steps=4)
    page.mouse.up()
    assert np.abs(before - pixels(page, "#stage")).max() > 20
    assert page.locator(".divider").get_attribute("aria-valuenow") == divider  # it was the photo that moved
    page.get_by_role("button", name="Whole photo").click()
    assert zoom.text_content() == whole


def first_face_is(page: Page, *, on: bool, strength: float) -> None:
    """Wait until the service holds this of the oldest photo's first face, and the page shows it."""
    for _ in range(600):
        document = documents(page)[0]
        face = document["faces"][0]
        if (face["on"], face["strength"]) == (on, strength):
            page.locator(f".world img[src*='region?v={document['version']}']").wait_for(state="attached")
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"the face is {face['on']} at {face['strength']}")


def test_a_face_is_turned_off_weakened_and_taken_back(restored: Opened, pixels: Seen) -> None:
    page = restored()
    start = documents(page)[0]["faces"][0]["strength"]  # what the rules made of it
    page.get_by_role("button", name="Face 1 of 2").click()
    assert page.locator("#face-title").text_content() == "Face 1 of 2"
    part = page.locator(".outline").first.bounding_box()
    show_after(page)
    strength = page.get_by_role("slider", name="Strength")
    for share in (40, 100):
        strength.fill(str(share))
        first_face_is(page, on=True, strength=share / 100)
        page.wait_for_timeout(1500)  # the next push is a step of its own
    full = pixels(page, "", part)

    page.get_by_role("switch", name="Restore this face").click()
    first_face_is(page, on=False, strength=1)
    off = pixels(page, "", part)
    page.locator(".divider").press("End")
    before = pixels(page, "", part)
    # The photo before comes as a JPEG, the face's place as a PNG.
    assert np.abs(before - off).mean() < np.abs(before - full).mean() / 3

    undo = page.get_by_role("button", name="Undo")
    undo.click()
    first_face_is(page, on=True, strength=1)
    undo.click()
    first_face_is(page, on=True, strength=0.4)
    expect(strength).to_have_value("40")
    undo.click()
    first_face_is(page, on=True, strength=start)
    expect(undo).to_be_disabled()


def test_another_guess_is_chosen(restored: Opened) -> None:
    page = restored()
    version = documents(page)[0]["version"]
    page.get_by_role("button", name="Face 2 of 2").click()
    page.get_by_role("button", name="Another guess").click()
    guesses = page.get_by_role("group", name="Guesses").get_by_role("button")
    expect(guesses).to_have_count(4)
    sides = [guesses.nth(number).bounding_box() for number in range(4)]
    assert len({round(box["y"]) for box in sides if box}) == 1  # side by side
    guesses.nth(2).click()
    assert changed(page, version + 1)["faces"][1]["guess"] == 2
    expect(guesses.nth(2)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Control+z")
    assert changed(page, version + 2)["faces"][1]["guess"] == 0


def test_a_guess_with_a_prompt_and_more_faithful(restored: Opened) -> None:
    page = restored()
    page.get_by_role("button", name="Face 1 of 2").click()
    page.get_by_text("Draw it differently").click()
    page.get_by_label("What the face shows").fill("a smiling woman")
    page.get_by_label("Detail or faithfulness").select_option("faithful and smooth")
    page.get_by_role("button", name="Draw it so").click()
    page.locator(".guesses button").nth(1).wait_for()
    made = documents(page)[0]["faces"][0]["guesses"][1]
    assert (made["prompt"], made["fidelity"]) == ("a smiling woman", 1)


def test_the_map_of_where_it_guesses(restored: Opened) -> None:
    page = restored()
    page.get_by_role("button", name="Face 1 of 2").click()
    page.get_by_role("button", name="Where it guesses").click()
    page.locator("#face .map[src]").wait_for(state="visible")
    again = page.get_by_role("button", name="Where it guesses")
    assert again.get_attribute("aria-pressed") == "true"
    again.click()
    assert page.locator("#face .map").is_hidden()


def test_options_hold_for_the_photos_that_follow(open_page: Opened, photo_file: Path) -> None:
    page = open_page()
    summary = page.locator("#options > summary")
    summary.click()
    page.get_by_label("Faces", exact=True).select_option("all that are found")
    page.get_by_label("Strength", exact=True).fill("0.5")
    page.get_by_label("Keep the likeness").uncheck()
    page.get_by_label("File format").select_option("WEBP")
    page.get_by_text("Which faces are left alone").click()
    page.get_by_label("Most turned").fill("80")
    expect(summary).to_have_text("Options (5 changed)")
    known = {one["id"] for one in documents(page)}
    page.locator("#files").set_input_files(photo_file)
    chosen = page.locator("#queue li.chosen")
    expect(chosen.locator(".state")).to_have_text("2 of 2 faces restored")
    (made,) = [one for one in documents(page) if one["id"] not in known]
    asked = {"faces": "all", "strength": 0.5, "keep_likeness": False, "format": "webp", "max_yaw": 80}
    assert {name: made["options"][name] for name in asked} == asked
    assert [face["strength"] for face in made["faces"]] == [0.5, 0.5]
    with page.expect_download() as download:
        page.get_by_role("link", name="Download", exact=True).click()
    assert download.value.suggested_filename == "two.webp"
    page.get_by_role("button", name="All as usual").click()
    expect(summary).to_have_text("Options")
    page.evaluate("(id) => fetch(`/api/v1/restorations/${id}`, { method: 'DELETE' })", made["id"])
    expect(page.locator("#queue li")).to_have_count(len(known))


def test_a_photo_that_is_left_alone_says_so_and_its_faces_why(open_page: Opened, photo_file: Path) -> None:
    page = open_page()
    page.locator("#options > summary").click()
    page.get_by_text("Which faces are left alone").click()
    page.get_by_label("Smallest face").fill("900")
    page.locator("#files").set_input_files(photo_file)
    expect(page.locator("#queue li.chosen .state")).to_have_text("no face was restored")
    expect(page.locator("#said")).to_have_text("No face was restored: choose one to read why, or to restore it anyway.")
    page.get_by_role("button", name="Face 1 of 2, left alone").click()
    expect(page.locator("#face")).to_contain_text("Left alone: ")
    page.get_by_role("button", name="Restore it anyway").click()
    expect(page.locator("#queue li.chosen .state")).to_have_text("1 of 2 faces restored")
    page.evaluate("(id) => fetch(`/api/v1/restorations/${id}`, { method: 'DELETE' })", documents(page)[-1]["id"])


def test_likeness_is_told_in_words(restored: Opened) -> None:
    page = restored()
    page.get_by_role("button", name="Face 1 of 2").click()
    face = documents(page)[0]["faces"][0]
    assert face["warnings"], "random weights should not draw the same person"
    told = page.locator("#face .warning").all_text_contents()
    assert len(told) == len(face["warnings"])
    assert all(warning in text for warning, text in zip(face["warnings"], told, strict=True))
    assert f"{face['similarity']:.2f}" in (page.locator("#face").text_content() or "")


def test_dropping_pasting_cancelling_and_removing(open_page: Opened, photo_file: Path) -> None:
    page = open_page()
    page.locator("#queue .state", has_text="restored").first.wait_for()
    there = len(documents(page))
    expect(page.locator("#queue li")).to_have_count(there)
    give = """([data, name, kind]) => {
        const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
        const given = new DataTransfer();
        given.items.add(new File([bytes], name, { type: "image/png" }));
        const event = kind === "drop" ? new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true })
          : new ClipboardEvent("paste", { clipboardData: given, bubbles: true });
        document.body.dispatchEvent(event);
    }"""
    noise = io.BytesIO()
    Image.open(photo_file).rotate(180).save(noise, "PNG")
    for name, kind in (("dropped.png", "drop"), ("pasted.png", "paste")):
        page.evaluate(give, [base64.b64encode(noise.getvalue()).decode(), name, kind])
        page.locator("#queue li", has_text=name).wait_for()
    page.locator("#files").set_input_files([photo_file] * 8)
    cancel = page.get_by_role("button", name="Cancel two.png").last
    cancel.click()
    expect(page.locator("#queue li")).to_have_count(there + 2 + 8 - 1)
    expect(page.locator("#queue .state", has_text="restored")).to_have_count(there + 2 + 8 - 1)
    assert len(documents(page)) == there + 2 + 7
    last = page.locator("#queue li").last
    last.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert page.locator("#queue li").count() == there + 9
    last.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.locator("#queue li")).to_have_count(there + 8)


def test_nothing_is_asked_of_another_machine(open_page: Opened, service: str) -> None:
    asked: list[str] = []
    page = open_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{service}/#/judge")
    page.reload()
    page.wait_for_timeout(500)
    assert asked and all(url.startswith((service, "blob:", "data:")) for url in asked)
