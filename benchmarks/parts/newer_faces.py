"""The faces of split val that are not in the fixed benchmark: seeded pairs, groups, and likeness by dlib."""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from prefrestore.degrade.folder import degrade_folder
from prefrestore.degrade.presets import PRESETS
from prefrestore.errors import InvalidInputError
from prefrestore.metrics.likeness import DlibRecogniser, compare, distances, skin_tone, turn

SEED = 7
TURNED = 0.2
"""Of `prefrestore.metrics.likeness.turn`: about 25 degrees."""


def make_pairs(data: Path, folder: Path, levels: Sequence[str], size: int = 256) -> Path:
    """``folder/gt`` and ``folder/LEVEL``, in pictures of one name; what is there already stays.

    Faces stored at less than 15/16 of ``size`` are left out: enlarged further, they would be no truth.
    """
    fixed = {path.stem for path in (data / "bench" / "gt").glob("*.png")}
    chosen = [path for path in sorted((data / "faces" / "val").iterdir()) if path.stem not in fixed]
    chosen = [path for path in chosen if _stored_side(path) >= size * 15 // 16]
    if not chosen:
        raise InvalidInputError(f"{data}: every face of split val is in the fixed benchmark, or smaller than {size} px")
    sources = folder / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    for path in chosen:
        if not (sources / path.name).exists():
            os.symlink(path.resolve(), sources / path.name)
    for level in levels:
        made = folder / "pairs" / level
        preset = level if level in PRESETS else f"bench-{level}"
        degrade_folder(sources, made, preset, seed=SEED, size=size, skip_existing=True)
        for link, target in ((folder / level, made / "lq"), (folder / "gt", made / "hq")):
            if not link.exists():
                os.symlink(target.resolve(), link)
    return folder


def _stored_side(path: Path) -> int:
    with Image.open(path) as image:
        return min(image.size)


def groups_of(data: Path, names: Sequence[str], pictures: Sequence[np.ndarray]) -> dict[str, list[str]]:
    """Source, tone of skin, turn of the head and, where a caption says so, glasses; for each face, an empty text if
    unknown."""
    with (data / "faces.csv").open(newline="", encoding="utf-8") as file:
        table = {row["id"]: row for row in csv.DictReader(file)}
    captions = data / "captions.jsonl"
    lines = captions.read_text(encoding="utf-8").splitlines() if captions.is_file() else []
    told = {entry["id"]: str(entry.get("glasses", "")) for entry in map(json.loads, lines)}
    groups: dict[str, list[str]] = {"source": [], "skin": [], "head": [], "glasses": []}
    for name, picture in zip(names, pictures, strict=True):
        row = table[Path(name).stem]
        angle, points = skin_tone(picture), np.array(row["points"].split(), dtype=float).reshape(5, 2)
        grey = np.ptp(picture.astype(int), axis=2).mean() < 2
        groups["source"].append(row["source"])
        groups["skin"].append("" if grey else "light" if angle > 41 else "dark" if angle < 10 else "middle")
        groups["head"].append("turned" if turn(points) > TURNED else "frontal")
        groups["glasses"].append(told.get(Path(name).stem, ""))
    return groups


class Likeness:
    """dlib's vectors of pictures; those of the truths and of the inputs are kept in a file."""

    def __init__(self, kept: Path) -> None:
        self.recogniser, self.kept = DlibRecogniser(), kept
        self.known: dict[str, Any] = dict(np.load(kept)) if kept.is_file() else {}
        self.boxes: dict[str, Any] = {}
        self.found: dict[tuple[str, str], dict[str, Any]] = {}

    def see(self, level: str, title: str, name: str, truth: np.ndarray, picture: np.ndarray, *, keep: bool) -> None:
        """Look at one system's picture of a face."""
        if name not in self.boxes:
            self.boxes[name] = self.recogniser.box(truth)
            self._kept(f"gt/{name}", truth, name)
        key = f"{level}/{name}"
        vector = self._kept(key, picture, name) if keep else self.recogniser.vector(picture, self.boxes[name])
        self.found.setdefault((level, title), {})[name] = vector

    def _kept(self, key: str, picture: np.ndarray, name: str) -> Any:
        if key not in self.known:
            self.known[key] = self.recogniser.vector(picture, self.boxes[name])
        return self.known[key]

    def report(self, console: Console, names: Sequence[str], groups: dict[str, list[str]]) -> dict[str, Any]:
        """Print a table; returns it, and keeps the vectors."""
        np.savez(self.kept, **self.known)
        table = Table(title="dlib's distance to the true face (never trained on)")
        for column in ("level", "system", "n", "input", "restored", "gain", "faces that gain", "worst groups"):
            table.add_column(column, justify="left" if column in ("level", "system", "worst groups") else "right")
        truths = np.stack([self.known[f"gt/{name}"] for name in names])
        result: dict[str, Any] = {}
        for (level, title), seen in self.found.items():
            before = distances(np.stack([self.known[f"{level}/{name}"] for name in names]), truths)
            after = distances(np.stack([seen[name] for name in names]), truths)
            row = compare(before, after, groups)
            result.setdefault(level, {})[title] = row | {"faces": dict(zip(names, after.tolist(), strict=True))}
            worst = ", ".join(f"{name} {100 * gain:+.1f} % ({n})" for name, n, gain in row["groups"][:3])
            values = (f"{row['before']:.4f}", f"{row['after']:.4f}", f"{100 * row['gain']:+.1f} %")
            table.add_row(level, title, str(len(names)), *values, f"{100 * row['share']:.0f} %", worst)
        console.print(table)
        return result
