"""Read faces' attributes where nobody described them, and phrase captions from them.

    python tools/attributes.py fit --data DATA -o reader.safetensors
    python tools/attributes.py caption --data DATA --reader reader.safetensors -o captions.jsonl

DATA is in the layout of docs/data-card.md; those rows of its ``captions.jsonl`` that tell attributes are what is
learnt from.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from prefrestore.data.attributes import CLASSES, attributes_of, phrase
from prefrestore.data.faces import FaceSet, load_face_set
from prefrestore.files.atomic import written_beside
from prefrestore.metrics.attributes import AttributeReader, FaceFeatures, fit_reader
from prefrestore.training.images import to_signed

SIZE = 256
SURE = 0.6
"""A class that is less likely than this is not told."""
app = typer.Typer(add_completion=False, help=__doc__)
Data = Annotated[Path, typer.Option(help="a folder in the layout of docs/data-card.md")]


def told_rows(data: Path) -> dict[str, dict[str, str]]:
    """The attributes of each described face, by id."""
    lines = (data / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {str(row["id"]): attributes_of(row) for row in map(json.loads, filter(str.strip, lines))}
    return {name: row for name, row in rows.items() if row}


@torch.no_grad()
def features_of(faces: FaceSet, rows: list[int], network: FaceFeatures, *, mirrored: bool = False) -> Tensor:
    """The features of some faces (N,F)."""
    found = []
    for first in range(0, len(rows), 32):
        images = to_signed(np.asarray(faces.images[rows[first : first + 32]]))
        found.append(network(images.flip(-1) if mirrored else images))
    return torch.cat(found)


def mirrored_row(row: dict[str, str]) -> dict[str, str]:
    """The attributes of the face as a mirror shows it."""
    turned = {"left": "right", "right": "left"}
    return {name: turned.get(value, value) if name == "pose" else value for name, value in row.items()}


def report(reader: AttributeReader, features: Tensor, truth: list[dict[str, str]]) -> Iterator[str]:
    """A line for each attribute: how often it is read right, and how often the commonest class alone would be."""
    said = reader.read(features)
    for name, classes in CLASSES.items():
        pairs = [(a[name], b[name]) for a, b in zip(said, truth, strict=True) if name in b]
        right = np.mean([a == b for a, b in pairs])
        usual = max(sum(b == c for _, b in pairs) for c in classes) / len(pairs)
        recall = [np.mean([a == c for a, b in pairs if b == c]) for c in classes if any(b == c for _, b in pairs)]
        yield f"{name:12} right {right:.3f}  commonest class {usual:.3f}  mean of classes {np.mean(recall):.3f}"


@app.command()
def fit(
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output")],
    penalty: Annotated[float, typer.Option(help="of the squared weights")] = 3.0,
) -> None:
    """Fit the reader to the described training faces; print how often it is right on the validation faces."""
    rows, network = told_rows(data), FaceFeatures()
    train, held_out = (load_face_set(data, split, size=SIZE) for split in ("train", "val"))
    known = [index for index, name in enumerate(train.ids) if name in rows]
    learnt = [rows[train.ids[index]] for index in known]
    features = torch.cat([features_of(train, known, network, mirrored=flip) for flip in (False, True)])
    reader = fit_reader(features, [*learnt, *map(mirrored_row, learnt)], CLASSES, penalty=penalty)
    asked = [index for index, name in enumerate(held_out.ids) if name in rows]
    for line in report(reader, features_of(held_out, asked, network), [rows[held_out.ids[index]] for index in asked]):
        typer.echo(line)
    with written_beside(output) as part:
        reader.save(part)


@app.command()
def caption(
    data: Data,
    reader: Annotated[Path, typer.Option(help="what `fit` wrote")],
    output: Annotated[Path, typer.Option("-o", "--output")],
    phrases: Annotated[int, typer.Option(help="sentences a face")] = 8,
    seed: int = 0,
) -> None:
    """Write ``captions.jsonl`` for all faces: the captions that there are, and sentences phrased from attributes."""
    rows, network, held = told_rows(data), FaceFeatures(), AttributeReader.load(reader)
    lines = [json.loads(line) for line in (data / "captions.jsonl").read_text(encoding="utf-8").splitlines() if line]
    captions = {str(line["id"]): line["caption"] for line in lines}
    rng, written = np.random.default_rng(seed), []
    for split in ("train", "val", "synthetic"):
        if not (data / "faces" / split).is_dir():
            continue
        faces = load_face_set(data, split, size=SIZE, include_defects=True)
        unknown = [index for index, name in enumerate(faces.ids) if name not in rows]
        read = held.read(features_of(faces, unknown, network), least=SURE) if unknown else []
        rows |= {faces.ids[index]: row for index, row in zip(unknown, read, strict=True)}
        for name in faces.ids:
            told = {"caption": captions[name]} if name in captions else {}
            sentences = sorted({phrase(rows[name], rng) for _ in range(phrases)})
            written.append({"id": name, **told, "phrases": sentences, "attributes": rows[name]})
    with written_beside(output) as part:
        part.write_text("".join(json.dumps(line) + "\n" for line in written), encoding="utf-8")
    typer.echo(f"{output}: {len(written)} faces")


if __name__ == "__main__":
    sys.exit(app())
