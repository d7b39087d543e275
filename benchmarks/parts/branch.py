"""What the semantic branch and the captions buy, on the newer faces of val: paired differences with 95 % intervals.

    python benchmarks/quality.py branch --faces ../shared/data --pairs PAIRS --captions captions.jsonl
    python benchmarks/quality.py steering --faces ../shared/data --pairs PAIRS --reader reader.safetensors

``captions.jsonl`` and the reader are written by ``tools/attributes.py``. "Right" is a sentence of the face's
attributes, "wrong" that of another face that differs in many of them, "empty" no caption, "without" queries of zeros.
"""

import argparse
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parts.newer_faces import make_pairs
from parts.sheets import seed_sheet
from parts.systems import as_array, names_of, read, sample
from PIL import Image
from torch import Tensor

from prefrestore.data.attributes import CLASSES, phrase
from prefrestore.metrics.attributes import AttributeReader, FaceFeatures
from prefrestore.metrics.likeness import DlibRecogniser, distances
from prefrestore.metrics.lpips import LPIPS
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.training.images import to_signed

BATCH = 8
OPPOSITES: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "glasses": (("wearing glasses", "glasses"), ("no glasses", "none")),
    "expression": (("smiling broadly, showing teeth", "smile"), ("not smiling, mouth closed", "serious")),
    "age": (("an old person with grey hair", "elderly"), ("a young person", "young")),
}
"""Attribute -> two prompts and the class that each asks for; either smile is a smile."""


def difference(before: np.ndarray, after: np.ndarray) -> str:
    """The mean of ``after - before`` over faces, and the half width of its 95 % interval."""
    change = after - before
    half = 1.96 * change.std(ddof=1) / len(change) ** 0.5
    clear = "clear of 0" if abs(change.mean()) > half else "not clear of 0"
    return f"{change.mean():+.5f} +- {half:.5f} ({clear})"


def sentences(rows: dict[str, dict[str, str]], names: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Right and wrong captions: the wrong one is of the face that differs in most attributes among some drawn ones."""
    rng = np.random.default_rng(seed)
    right, wrong = [], []
    for name in names:
        mine = rows[Path(name).stem]
        others = [rows[Path(names[int(k)]).stem] for k in rng.integers(len(names), size=12)]
        other = max(others, key=lambda row: sum(row.get(key) != value for key, value in mine.items()))
        right.append(phrase(mine, np.random.default_rng(zlib.crc32(name.encode())), keep=1.0))
        wrong.append(phrase(other, np.random.default_rng(zlib.crc32(name.encode())), keep=1.0))
    return right, wrong


class Restorations:
    """One model on the pairs of one level; every face has its own noise, the same for all its prompts."""

    def __init__(self, options: argparse.Namespace) -> None:
        make_pairs(options.faces, options.pairs, [options.level])
        self.options, self.folder = options, options.pairs
        self.every = names_of(options.pairs / "gt", [options.pairs / options.level])
        self.names = sample(self.every, options.limit)
        self.pipeline = load_preset_pipeline("compact", folder=options.model, face_size="core")

    def lq(self, names: Sequence[str]) -> list[Image.Image]:
        """The degraded faces."""
        return [read(self.folder / self.options.level / name) for name in names]

    def truth(self, name: str) -> np.ndarray:
        """The true face, (H,W,3) uint8."""
        return as_array(read(self.folder / "gt" / name))

    def restore(self, names: Sequence[str], prompts: Sequence[str | None], queries: Tensor | None = None) -> np.ndarray:
        """(B,H,W,3) uint8."""
        made = self.pipeline(
            self.lq(names),
            prompt=list(prompts),
            queries=queries,
            generator=[torch.Generator().manual_seed(self.every.index(name)) for name in names],
            fidelity=self.options.fidelity,
            num_inference_steps=self.options.steps,
            output_type="np",
        ).images
        return (np.asarray(made) * 255).round().astype(np.uint8)

    def silence(self, count: int) -> Tensor:
        """Queries of zeros."""
        return torch.zeros(
            count, self.pipeline.image_tokenizer.num_tokens + 1, self.pipeline.language_model.config.hidden_size
        )


def parse(description: str | None, **extra: dict[str, Any]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, help="folder of the data card")
    parser.add_argument("--pairs", type=Path, default=Path("newer_faces"), help="where its pairs are kept")
    parser.add_argument("--level", default="severe")
    parser.add_argument("--model", type=Path, help="a pipeline folder in place of the bundled weights")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--fidelity", type=float)
    parser.add_argument("--limit", type=int, help="a fixed random sample of so many faces")
    parser.add_argument("--seed", type=int, default=0)
    for name, settings in extra.items():
        parser.add_argument(f"--{name}", **settings)
    return parser.parse_args()


@torch.no_grad()
def main() -> None:
    """Paired differences of LPIPS and dlib's distance, and how often free writing is right."""
    options = parse(__doc__, captions={"type": Path, "required": True, "help": "with attributes for every face"})
    made = Restorations(options)
    lines = map(json.loads, filter(str.strip, options.captions.read_text(encoding="utf-8").splitlines()))
    rows = {line["id"]: line["attributes"] for line in lines if line.get("attributes")}
    right, wrong = sentences(rows, made.names, options.seed)
    lpips, recogniser = LPIPS("alex"), DlibRecogniser()
    found: dict[str, dict[str, list[float]]] = {}
    copied, written, count = 0, 0, 0
    for start in range(0, len(made.names), BATCH):
        part = slice(start, start + BATCH)
        names = made.names[part]
        truths = [made.truth(name) for name in names]
        told: dict[str, tuple[Sequence[str | None], Tensor | None]] = {
            "without": ([None] * len(names), made.silence(len(names))),
            "empty": ([None] * len(names), None),
            "right": (right[part], None),
            "wrong": (wrong[part], None),
        }
        for title, (prompts, queries) in told.items():
            pictures = made.restore(names, prompts, queries)
            row = found.setdefault(title, {"LPIPS": [], "dlib": []})
            row["LPIPS"] += lpips(to_signed(pictures), to_signed(np.stack(truths))).tolist()
            for picture, truth in zip(pictures, truths, strict=True):
                box = recogniser.box(truth)
                vectors = np.stack([recogniser.vector(each, box) for each in (picture, truth)])
                row["dlib"].append(float(distances(vectors[:1], vectors[1:])[0]))
        images, clean = made.pipeline.prepare(made.lq(names)), to_signed(np.stack(truths))
        given, true = (made.pipeline.image_tokenizer.encode(each) for each in (images, clean))
        answer = made.pipeline.semantic_branch().write(images, right[part]).tokens
        copied, written, count = (
            copied + int((given == true).sum()),
            written + int((answer == true).sum()),
            count + true.numel(),
        )
    for title, row in found.items():
        print(f"{title:8}" + "".join(f"  {name} {np.mean(values):.4f}" for name, values in row.items()))
    for before, after in (("without", "empty"), ("without", "right"), ("empty", "right"), ("empty", "wrong")):
        for name in ("LPIPS", "dlib"):
            values = [np.array(found[title][name]) for title in (before, after)]
            print(f"{after} minus {before}, {name}: {difference(*values)}, {len(values[0])} faces")
    print(f"tokens right, told the right caption: copied {copied / count:.3f}, written {written / count:.3f}")


@torch.no_grad()
def steering() -> None:
    """Opposite prompts: how often the attribute reader finds what was asked for, and what likeness it costs."""
    options = parse(
        steering.__doc__,
        reader={"type": Path, "required": True, "help": "what tools/attributes.py fit wrote"},
        sheet={"type": Path, "help": "write the pictures (PNG)"},
    )
    options.limit = options.limit or 30
    made, reader, network = Restorations(options), AttributeReader.load(options.reader), FaceFeatures()
    recogniser = DlibRecogniser()
    boxes = {name: recogniser.box(made.truth(name)) for name in made.names}
    truths = {name: recogniser.vector(made.truth(name), boxes[name]) for name in made.names}

    def seen(prompts: Sequence[str | None]) -> tuple[np.ndarray, dict[str, Tensor], float]:
        pieces = [slice(k, k + BATCH) for k in range(0, len(made.names), BATCH)]
        pictures = np.concatenate([made.restore(made.names[p], prompts[p]) for p in pieces])
        chances = reader.probabilities(network(to_signed(pictures)))
        far = [
            float(np.linalg.norm(recogniser.vector(picture, boxes[name]) - truths[name]))
            for name, picture in zip(made.names, pictures, strict=True)
        ]
        return pictures, chances, float(np.mean(far))

    plain, _, before = seen([None] * len(made.names))
    shown, total, followed = [plain], 0, 0
    for attribute, sides in OPPOSITES.items():
        classes = CLASSES[attribute]
        for prompt, wanted in sides:
            pictures, chances, far = seen([prompt] * len(made.names))
            best = [classes[int(k)] for k in chances[attribute].argmax(1)]
            hits = sum(found == wanted or (wanted == "smile" and found.endswith("smile")) for found in best)
            total, followed = total + len(best), followed + hits
            mean = chances[attribute][:, classes.index(wanted)].mean().item()
            print(
                f"{prompt!r}: read as {wanted} {hits} of {len(best)} (mean probability {mean:.2f}), "
                f"dlib's distance {100 * (far / before - 1):+.1f} % against no prompt"
            )
            shown.append(pictures)
    print(f"followed {followed} of {total} ({100 * followed / total:.0f} %)")
    if options.sheet:
        rows = [[[Image.fromarray(each[place]) for each in shown]] for place in range(len(made.names))]
        seed_sheet(made.lq(made.names), rows).save(options.sheet)
        print(options.sheet)
