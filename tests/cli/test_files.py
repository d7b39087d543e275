"""Files and streams as people have them: formats, pages, pipes, names that cannot be printed, interrupts."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from prefrestore import cli
from prefrestore.cli.report import escape_unprintable, report
from prefrestore.restoration.batch import Outcome

Restore = Callable[..., Any]
COMMAND = [sys.executable, "-m", "prefrestore.cli", "restore", "--preset", "tiny", "--device", "cpu"]


def test_format_quality_and_one_output_file(restore: Restore, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = restore(photo, "-o", out, "--format", "webp", "--suffix", "_new", "--quality", "30")
    assert ran.code == 0, ran.text
    assert sorted(path.name for path in out.iterdir()) == ["aunt_new.json", "aunt_new.webp"]
    ran = restore(photo, "-o", tmp_path / "one.jpg")
    assert ran.code == 0 and Image.open(tmp_path / "one.jpg").format == "JPEG"
    ran = restore(photo, "-o", tmp_path / "x", "--format", "png", "--quality", "30")
    assert ran.code == 0 and "note: PNG has no quality" in ran.text


def test_pages_of_a_tiff_are_restored_each(restore: Restore, portrait: NDArray[np.uint8], tmp_path: Path) -> None:
    pages = [Image.fromarray(portrait), Image.new("RGB", (50, 60), "grey"), Image.fromarray(np.fliplr(portrait))]
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=pages[1:])
    ran = restore(tmp_path / "scan.tif", "-o", tmp_path / "out", "--compare", "--crops")
    assert ran.code == 0 and "2 of 2 faces" in ran.text, ran.text
    with Image.open(tmp_path / "out/scan.tif") as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
        for number, page in enumerate(pages):
            image.seek(number)
            before, after = np.asarray(page), np.asarray(image)
            assert before.shape == after.shape and (before != after).any() == (number != 1)
    said = json.loads((tmp_path / "out/scan.json").read_text())
    assert [face["page"] for face in said["faces"]] == [0, 2] and [row["page"] for row in said["pages"]] == [0, 1, 2]
    assert (tmp_path / "out/scan_compare_page2.png").exists() and (
        tmp_path / "out/scan_faces/page2_0_after.png"
    ).exists()
    assert "scan_compare_page2.png" in said["files"]["compare"]
    ran = restore(tmp_path / "scan.tif", "-o", tmp_path / "out", "--format", "jpg")
    assert ran.code == 1 and "3 pages" in ran.text
    ran = restore(tmp_path / "scan.tif", "-o", tmp_path / "dry", "--dry-run")
    assert ran.code == 0 and "page 2 face 0" in ran.text


def test_large_scans_are_allowed_when_asked_for(restore: Restore, photo: Path, tmp_path: Path) -> None:
    ran = restore(photo, "-o", tmp_path / "out", "--max-pixels", "30000")
    assert ran.code == 1 and "max-pixels" in ran.text
    assert restore(photo, "-o", tmp_path / "out", "--max-pixels", "40000").code == 0


def test_what_is_not_kept_is_told_on_the_terminal(restore: Restore, photo: Path, tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Title", "Aunt")
    Image.open(photo).save(photo, pnginfo=info)
    ran = restore(photo, "-o", tmp_path / "out", "--format", "jpg")
    assert ran.code == 0 and "texts" in ran.text
    assert "texts" in "".join(json.loads((tmp_path / "out/aunt.json").read_text())["notes"])


def test_comparisons_carry_the_profile(restore: Restore, photo: Path, tmp_path: Path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.open(photo).save(photo, icc_profile=profile)
    assert restore(photo, "-o", tmp_path / "out", "--compare", "--crops").code == 0
    for name in ("aunt.png", "aunt_compare.png", "aunt_faces/0_after.png"):
        with Image.open(tmp_path / "out" / name) as image:
            assert image.info["icc_profile"] == profile, name


@pytest.mark.parametrize(
    "arguments",
    [["--scale", "3"], ["--format", "bmp"], ["--quality", "0"], ["--model", ""], ["--max-pixels", "0"], [""]],
    ids=str,
)
def test_mistakes_in_the_command_exit_with_2(
    restore: Restore, photo: Path, tmp_path: Path, arguments: list[str]
) -> None:
    ran = restore(photo, "-o", tmp_path / "out", *arguments)
    assert ran.code == 2, ran.text
    assert not (tmp_path / "out").exists()


def test_an_empty_output_is_not_the_current_folder(restore: Restore, photo: Path) -> None:
    assert restore(photo, "-o", "").code == 2


def outcome(name: str) -> Outcome:
    return Outcome(source=Path(name), status="restored", faces=1, restored=1, output=Path("out") / name)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_names_that_cannot_be_printed_are_escaped(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    escape_unprintable()
    names = ["\u5f20.png", os.fsdecode(b"M\xfcller.png"), "plain.png"]
    assert report([outcome(name) for name in names], 3, [], ["\u5f20 \udcfc"])
    streams[0].seek(0)
    text = streams[0].read()
    assert "3 restored" in text and "ller.png" in text and (encoding == "utf-8") == ("\u5f20" in text)


def test_pillow_s_own_warnings_stay_off_the_terminal(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def warn() -> None:
        for module in ("PIL.TiffImagePlugin", "elsewhere"):
            warnings.warn_explicit("Corrupt EXIF data", UserWarning, f"{module}.py", 982, module=module)

    monkeypatch.setattr(cli, "app", warn)
    cli.main()
    assert [str(warning.filename) for warning in recwarn.list] == ["elsewhere.py"]


class FullDisk(io.TextIOWrapper):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_output_stops_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    errors = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with (tmp_path / "x").open("wb") as file:
        monkeypatch.setattr(sys, "stdout", FullDisk(file))
        monkeypatch.setattr(sys, "stderr", errors)
        seen = []

        def outcomes() -> Any:
            for name in ("a.png", "b.png"):
                seen.append(name)
                yield outcome(name)

        assert not report(outcomes(), 2, [])
    assert seen == ["a.png", "b.png"]
    errors.seek(0)
    assert "No space left" in errors.read()


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes, and /dev/full is there")
def test_bytes_as_names_and_no_room_to_print(photo: Path, tmp_path: Path) -> None:
    odd = os.path.join(os.fsencode(photo.parent), b"M\xfcller.png")
    os.rename(photo, odd)
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    with open("/dev/full", "w") as full:
        arguments = [*COMMAND, photo.parent, "-o", tmp_path / "out"]
        ran = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, env=environment, check=False)
    assert ran.returncode == 1 and b"No space left" in ran.stderr and b"Traceback" not in ran.stderr, ran.stderr
    assert b"Exception ignored" not in ran.stderr
    out = os.fsencode(tmp_path / "out")
    assert sorted(os.listdir(out)) == [b"M\xfcller.json", b"M\xfcller.png"]
    record = json.loads((tmp_path / "out" / os.fsdecode(b"M\xfcller.json")).read_text())
    assert os.fsencode(record["input"]["name"]) == b"M\xfcller.png"


def test_standard_input_to_standard_output(photo: Path, tmp_path: Path) -> None:
    arguments = [*COMMAND, "-", "-o", "-", "--format", "webp"]
    ran = subprocess.run(arguments, input=photo.read_bytes(), capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    with Image.open(io.BytesIO(ran.stdout)) as image:
        assert image.format == "WEBP" and image.size == (192, 192)
    assert b"stdin.png -> standard output: 1 of 1 face" in ran.stderr and b"1 restored" in ran.stderr


def test_standard_output_takes_one_picture(restore: Restore, photo: Path, tmp_path: Path) -> None:
    ran = restore(photo, "-o", "-", "--compare")
    assert ran.code == 2 and "one picture" in ran.text
    Image.open(photo).save(photo.parent / "b.png")
    assert restore(photo.parent, "-o", "-").code == 2


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_one_interrupt_finishes_what_is_in_hand_and_two_stop(tmp_path: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from prefrestore.cli.interrupt import told_interrupts
from prefrestore.files.atomic import written_beside
from prefrestore.restoration.batch import Outcome, run_tasks
from prefrestore.restoration.plan import make_plan

def work(task):
    with written_beside(task.output) as part:
        part.write_text("half")
        print("begun", flush=True)
        time.sleep(float(sys.argv[2]))
    return Outcome(source=task.source, status="restored")

folder = Path(sys.argv[1])
tasks = make_plan([folder / "in"], folder / "out").tasks
try:
    with told_interrupts():
        for outcome in run_tasks(tasks, work, jobs=1 + int(sys.argv[3])):
            pass
except KeyboardInterrupt:
    sys.exit(130)
"""
    (tmp_path / "in").mkdir()
    for name in range(6):
        (tmp_path / "in" / f"{name}.png").touch()
    for interrupts, seconds in ((1, "1"), (2, "60")):
        command = [sys.executable, "-c", script, str(tmp_path), seconds, "1"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(interrupts):
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        _, errors = process.communicate(timeout=50)
        assert process.returncode == 130 and b"Traceback" not in errors
        assert (b"in hand" in errors) and (b"stopped" in errors) == (interrupts == 2)
        left = [path.name for path in (tmp_path / "out").iterdir()]
        assert not any("part" in name for name in left) and len(left) < 6
