"""``prefrestore evaluate``, with the tiny random model."""

import csv
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFRESTORE_CACHE", str(tmp_path / "empty"))
    monkeypatch.setitem(sys.modules, "dlib", None)


def checked_page(path: Path) -> ElementTree.Element:
    """The page, well formed and without anything from outside itself."""
    text = path.read_text(encoding="utf-8")
    page = ElementTree.fromstring(text)
    assert not {"script", "link", "iframe"} & {element.tag for element in page.iter()}
    assert all(image.get("src", "").startswith("data:image/jpeg;base64,") for image in page.iter("img"))
    assert not re.search(r"url\(|@import|(src|href)=.?http", text)
    assert 'name="viewport"' in text
    return page


def test_restorations_with_references_and_a_broken_picture(
    prefrestore: Callable[..., Any], bench: Path, tmp_path: Path
) -> None:
    (bench / "mild" / "1&.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    ran = prefrestore(["evaluate", "--restored", bench / "mild", "--reference", bench / "gt", "-o", out])
    assert ran.code == 1 and "set aside: mild, 1&" in ran.text
    report = json.loads((out / "report.json").read_text())
    system = report["sets"]["mild"]["systems"]["restored"]
    assert sorted(system["faces"]) == ["0&", "2&"] and system["summary"]["psnr"]["n"] == 2
    # What has no weights here is blank and says why; nothing stands in for it.
    assert {"lpips_alex", "lpips_vgg", "landmarks", "musiq", "fid", "kid"} <= set(report["missing"])
    assert "lpips_alex" not in system["summary"] and system["faces"]["0&"]["lpips_alex"] is None
    assert report["metrics"]["identity"]["sha256"] and "lpips_alex" not in report["metrics"]
    assert report["versions"]["torch"] and report["settings"]["folders"]["mild"]["reference"] == str(bench / "gt")
    with (out / "report.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["face"] for row in rows] == list(system["faces"]) and "lpips_alex" not in rows[0]
    assert float(rows[0]["psnr"]) == pytest.approx(system["faces"][rows[0]["face"]]["psnr"])
    page = checked_page(out / "report.html")
    text = " ".join(page.itertext())
    assert "LPIPS alex is left blank" in text and "no picture" not in text and "1&" in text
    assert len(list(page.iter("img"))) == 2 * 2


def test_a_protocol_is_restored_and_its_spread_measured(
    prefrestore: Callable[..., Any], bench: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["evaluate", "--protocol", "bench", "--data", bench, "-o", out, "--preset", "tiny", "--device", "cpu"]
    ran = prefrestore([*arguments, "--samples", "2", "--limit", "2"])
    assert ran.code == 0, ran.text
    assert "2 faces were measured, the protocol has 166 (a sample was asked for)" in ran.text
    report = json.loads((out / "report.json").read_text())
    assert report["protocol"]["title"] == "prefrestore bench" and report["settings"]["samples"] == 2
    assert report["settings"]["num_inference_steps"] >= 1 and report["pipeline"]["pipeline"]["preset"] == "tiny"
    for level in ("mild", "severe"):
        entry = report["sets"][level]
        assert entry["resized"] and entry["systems"]["prefrestore"]["summary"]["pixel_std"]["n"] == 2
    checked_page(out / "report.html")


def random_inception(path: Path) -> Path:
    from prefrestore.metrics.inception import InceptionV3

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = InceptionV3(None).state_dict()
    save_file({key: value for key, value in state.items() if "num_batches" not in key}, path)
    return path


def test_fid_needs_its_network_and_a_reference_set(
    prefrestore: Callable[..., Any], bench: Path, tmp_path: Path
) -> None:
    weights, out = random_inception(tmp_path / "inception.safetensors"), tmp_path / "out"
    command = ["evaluate", "--restored", bench / "severe", "-o", out, "--inception", weights, "--reference-set"]
    assert prefrestore([*command, bench / "gt"]).code == 0
    report = json.loads((out / "report.json").read_text())
    summary = report["sets"]["severe"]["systems"]["restored"]["summary"]
    assert summary["fid"]["mean"] > 0 and (summary["fid"]["n"], summary["fid"]["n_reference"]) == (3, 3)
    assert summary["fid"]["reference"] == str(bench / "gt") and report["metrics"]["fid, kid"]["sha256"]
    # The features of the reference set serve the next run, but not one with another network.
    assert prefrestore([*command, out / "reference_features.npz"]).code == 0
    again = json.loads((out / "report.json").read_text())["sets"]["severe"]["systems"]["restored"]["summary"]
    assert again["fid"]["mean"] == pytest.approx(summary["fid"]["mean"])
    state = load_file(weights)
    state["Conv2d_1a_3x3.bn.bias"] += 1
    save_file(state, weights)
    ran = prefrestore([*command, out / "reference_features.npz"])
    assert ran.code == 1 and "another network" in ran.text


def random_recogniser(made_up: Any, path: Path) -> Path:
    from prefrestore.metrics.recognition import GreyArcFace

    shapes = {key: tuple(value.shape) for key, value in GreyArcFace((8, 8, 16, 32), 16).state_dict().items()}
    torch.save(made_up.weights(shapes), path)
    return path


@pytest.mark.slow
def test_two_fids_and_a_named_identity(
    prefrestore: Callable[..., Any], bench: Path, made_up: Any, tmp_path: Path
) -> None:
    from prefrestore.metrics.recognition import degrees, load_recogniser

    inception, named = random_inception(tmp_path / "i.safetensors"), random_recogniser(made_up, tmp_path / "arc.pth")
    out, done, gt, lq = tmp_path / "out", bench / "mild", bench / "gt", bench / "severe"
    command = ["evaluate", "--restored", done, "--reference", gt, "--lq", lq, "-o", out, "--inception", inception]
    ran = prefrestore([*command, "--reference-set", lq, "--recogniser", named, "--likeness-threshold", "0.99999"])
    assert ran.code == 0, ran.text
    report = json.loads((out / "report.json").read_text())
    system = report["sets"]["mild"]["systems"]["restored"]
    assert system["summary"]["fid"]["reference"] == str(lq) and system["summary"]["fid_gt"]["reference"] == str(gt)
    assert system["summary"]["fid"]["mean"] != system["summary"]["fid_gt"]["mean"] and "kid_gt" in system["summary"]
    network = load_recogniser(named)
    pictures = {folder: np.asarray(Image.open(folder / "0&.png")) for folder in (done, gt, lq)}
    vectors = {folder: network.of(picture) for folder, picture in pictures.items()}
    row = system["faces"]["0&"]
    assert row["named_degrees"] == pytest.approx(degrees(vectors[done], vectors[gt]), abs=1e-3)
    assert row["input_likeness"] == pytest.approx(float(vectors[done] @ vectors[lq]), abs=1e-5)
    unlike = [face["unlike_input"] for face in system["faces"].values()]
    assert unlike == [float(face["input_likeness"] < 0.99999) for face in system["faces"].values()]
    assert system["summary"]["unlike_input"]["mean"] == pytest.approx(np.mean(unlike))
    assert report["metrics"]["named identity, likeness to input"]["sha256"] == network.sha256
    # A file of a mean and a covariance has no KID; without one FID is blank, and that of the ground truth is not.
    features = np.load(out / "reference_features.npz")["features"].astype(np.float64)
    np.savez(tmp_path / "stats.npz", mu=features.mean(0), sigma=np.cov(features, rowvar=False))
    assert prefrestore([*command, "--reference-set", tmp_path / "stats.npz"]).code == 0
    again = json.loads((out / "report.json").read_text())
    summary = again["sets"]["mild"]["systems"]["restored"]["summary"]
    assert summary["fid"]["mean"] == pytest.approx(system["summary"]["fid"]["mean"], rel=1e-3)
    assert "kid" not in summary and "alone" in again["missing"]["kid"] and "input_likeness" in again["missing"]
    assert prefrestore(command).code == 0
    last = json.loads((out / "report.json").read_text())
    summary = last["sets"]["mild"]["systems"]["restored"]["summary"]
    assert "fid" not in summary and "--reference-set" in last["missing"]["fid"] and "fid_gt" in summary


def test_the_challenge_gate_and_its_score(
    prefrestore: Callable[..., Any], bench: Path, made_up: Any, tmp_path: Path
) -> None:
    titles = ("CelebA", "CelebChild-Test", "LFW-Test", "WebPhoto-Test", "Wider-Test")
    lines = ["Filename,Dataset,CLIP_IQA,MANIQA,MUSIQ,NIQE,QALIGN"]
    for title in titles:
        for folder, source in (("test", "severe"), ("done", "mild")):
            (tmp_path / folder / title).mkdir(parents=True)
            (tmp_path / folder / title / "a.png").write_bytes((bench / source / "0&.png").read_bytes())
        lines.append(f"a.png,{title},0.8,0.6,75,4,4.5")
    (tmp_path / "scores.csv").write_text("\n".join(lines))
    out = tmp_path / "out"
    command = ["evaluate", "--protocol", "ntire-rwfr", "--data", tmp_path, "--restored", tmp_path / "done", "-o", out]
    command += ["--recogniser", random_recogniser(made_up, tmp_path / "arc.pth")]
    ran = prefrestore(command)
    assert ran.code == 0, ran.text
    report = json.loads((out / "report.json").read_text())
    verdict = report["verdict"]["restored"]
    assert verdict["measured"] == 5 and verdict["passes"] is True and verdict["score"] is None
    assert verdict["lacking"] == ["clipiqa", "maniqa", "musiq", "niqe", "qalign", "fid"] and "no score" in ran.text
    assert list(report["sets"]) == list(titles)
    extra = ["--scores", tmp_path / "scores.csv", "--inception", random_inception(tmp_path / "i.safetensors")]
    assert prefrestore([*command, *extra, "--reference-set", bench / "gt", "--likeness-threshold", "1"]).code == 0
    report = json.loads((out / "report.json").read_text())
    verdict = report["verdict"]["restored"]
    assert verdict["under"] == 5 and verdict["passes"] is True and not verdict["lacking"]
    fid = verdict["parts"]["fid"]
    assert verdict["score"] == pytest.approx(0.8 + 0.6 + 0.75 + 0.6 + 0.9 + max(0, (100 - fid) / 100))
    assert report["sets"]["CelebA"]["systems"]["restored"]["faces"]["a"]["given_niqe"] == 4
    checked_page(out / "report.html")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name a folder of restored faces"),
        (["--restored", "nowhere"], "nowhere is not a folder"),
        (["--protocol", "bench"], "belong together"),
        (["--protocol", "lfw", "--data", "."], "there is no protocol 'lfw'"),
        (["--restored", "{gt}", "--samples", "2"], "--samples needs restoring"),
        (["--restored", "{gt}", "--reference-set", "{gt}"], "need --inception"),
        (["--restored", "{gt}", "--likeness-threshold", "0.3"], "needs --recogniser"),
        (["--restored", "{gt}", "--recogniser", "{gt}/0&.png"], "cannot be read as weights"),
        (["--restored", "{gt}", "--scores", "{gt}/0&.png"], "cannot be read as a table"),
        (["--restored", "{gt}", "--reference-set", "{gt}", "--inception", "{gt}/0&.png"], "does not hold"),
    ],
)
def test_wrong_use_is_one_sentence(
    prefrestore: Callable[..., Any], bench: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    filled = [argument.replace("{gt}", str(bench / "gt")) for argument in arguments]
    ran = prefrestore(["evaluate", "-o", tmp_path / "out", *filled])
    assert ran.code == 1 and sentence in ran.text
    assert not (tmp_path / "out").exists()
