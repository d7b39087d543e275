"""Counts a folder of faces for the data card: `python -m prefrestore.data.card ROOT` prints Markdown
tables."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from prefrestore.data.faces import SUFFIXES
from prefrestore.errors import InvalidInputError, PrefRestoreError

ATTRIBUTES = ("gender", "age", "expression", "pose", "lighting", "glasses", "headwear")


def source_table(rows: Sequence[dict[str, str]]) -> list[str]:
    """One line a source of faces.csv: licence, synthetic or not, people, and faces by split (defects
    apart)."""
    lines = [
        "| source | licence | synthetic | people | train | train, defect | val |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    sources = sorted({row["source"] for row in rows})
    for source in [*sources, None]:
        chosen = [row for row in rows if source is None or row["source"] == source]
        licences = sorted({row["licence"] for row in chosen}) if source else [""]
        kinds = sorted({"yes" if row["synthetic"] == "1" else "no" for row in chosen}) if source else [""]
        train = [row for row in chosen if row["split"] == "train"]
        clean = sum(row["defect"] in ("none", "") for row in train)
        cells = [
            source or "together",
            " / ".join(licences),
            " / ".join(kinds),
            len({row["person"] for row in chosen}),
            clean,
            len(train) - clean,
            sum(row["split"] == "val" for row in chosen),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def attribute_table(rows: Sequence[dict[str, str]], captions: Iterable[dict[str, str]]) -> list[str]:
    """Shares of what captions.jsonl says, for photographs and for synthetic faces; what it does not say is
    left out."""
    synthetic = {row["id"]: row["synthetic"] == "1" for row in rows}
    entries = [entry for entry in captions if entry["id"] in synthetic]
    lines = ["| attribute | value | photographs | synthetic |", "| --- | --- | --- | --- |"]
    for attribute in ATTRIBUTES:
        counts = {
            kind: Counter(e[attribute] for e in entries if attribute in e and synthetic[e["id"]] is kind)
            for kind in (False, True)
        }
        totals = {kind: max(1, sum(counter.values())) for kind, counter in counts.items()}
        for value, number in (counts[False] + counts[True]).most_common():
            if number >= 0.01 * (totals[False] + totals[True]):
                shares = [f"{100 * counts[kind][value] / totals[kind]:.0f} %" for kind in (False, True)]
                lines.append(f"| {attribute} | {value} | {shares[0]} | {shares[1]} |")
    return lines


def card(root: Path) -> str:
    """The tables for `root` (faces.csv, captions.jsonl, faces/synthetic), Markdown; InvalidInputError names a
    file."""
    table, captions = root / "faces.csv", root / "captions.jsonl"
    try:
        with table.open(newline="", encoding="utf-8") as opened:
            rows = list(csv.DictReader(opened))
        lines = source_table(rows)
        if captions.is_file():
            entries = [json.loads(line) for line in captions.read_text(encoding="utf-8").splitlines() if line.strip()]
            lines += ["", *attribute_table(rows, entries)]
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInputError(f"{root} cannot be counted: {type(error).__name__} {error}") from error
    drawn = root / "faces" / "synthetic"
    if drawn.is_dir():
        lines += [
            "",
            f"Drawn from the generator: {sum(p.suffix in SUFFIXES for p in drawn.iterdir())} faces.",
        ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Prints the card of the one folder named; 1 when it cannot be read, 2 when the call is wrong."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m prefrestore.data.card ROOT\n")
        return 2
    try:
        sys.stdout.write(card(Path(arguments[0])))
    except PrefRestoreError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
