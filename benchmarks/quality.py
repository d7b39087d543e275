"""Quality of restorations against the ground truth: one table a level, one row a system.

    python benchmarks/quality.py                   LQ input, this model, and the peers that are installed
    python benchmarks/quality.py --systems lq --json lq.json        only the input, and a JSON of every face
    python benchmarks/quality.py --systems ours --prompt right --sheet sheet.png
    python benchmarks/quality.py --faces ../shared/data --pairs PAIRS  the newer faces of val, and likeness by dlib
    python benchmarks/quality.py --faces ../shared/data --pairs PAIRS512 --size 512 --levels mild severe nearly-clean
    python benchmarks/quality.py --real ../shared/data/real_lq --sheet old.png    (for looking)
    python benchmarks/quality.py round-trip        the autoencoder alone: PSNR, identity, LPIPS, landmarks
    python benchmarks/quality.py fill PEER FOLDER...                run a peer and keep its pictures
    python benchmarks/quality.py branch --help     what the semantic branch and the captions buy, paired
    python benchmarks/quality.py steering --help   whether opposite prompts change the picture as they say

Higher is better for PSNR, SSIM and identity (SFace, which training follows: with `--faces` dlib's network, which
nothing is trained on, has a table of its own), lower for LPIPS, landmarks and NIQE.
docs/benchmarks.md has the protocol.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parts.newer_faces import Likeness, groups_of, make_pairs
from parts.sheets import paired_sheet, real_sheet
from parts.systems import (
    BENCH,
    PEERS,
    PROMPTS,
    ModelOptions,
    Restore,
    as_array,
    command,
    names_of,
    ours,
    peer,
    peer_title,
    read,
    restore_cached,
    sample,
    unchanged,
)  # fmt: skip
from PIL import Image
from rich.console import Console
from rich.table import Table

from prefrestore.errors import InvalidInputError, MissingDependencyError, PrefRestoreError
from prefrestore.evaluation.evaluator import METRICS, MODELS, Evaluator, summarise
from prefrestore.models.texture.conditioning import Conditions
from prefrestore.models.texture.last_octave import core_view
from prefrestore.pipeline.build import load_preset_pipeline

COLUMNS = {
    "psnr": ("PSNR dB", ".2f"),
    "ssim": ("SSIM", ".3f"),
    "lpips_alex": ("LPIPS alex", ".3f"),
    "lpips_vgg": ("LPIPS vgg", ".3f"),
    "dists": ("DISTS", ".3f"),
    "identity": ("SFace (trained on)", ".3f"),
    "dlib": ("dlib", ".3f"),
    "landmarks": ("landmarks px", ".2f"),
    "niqe": ("NIQE", ".2f"),
    "musiq": ("MUSIQ", ".2f"),
}
BATCH = 8
SHEET_FACES = 24


def run(restore: Restore, names: list[str], folder: Path) -> dict[str, Image.Image]:
    """The restored pictures of one level, in batches."""
    done: dict[str, Image.Image] = {}
    for start in range(0, len(names), BATCH):
        batch = names[start : start + BATCH]
        done |= dict(zip(batch, restore(batch, [read(folder / name) for name in batch]), strict=True))
    return done


def show(console: Console, level: str, summaries: dict[str, dict[str, Any]]) -> None:
    """Print one level's table."""
    table = Table(title=level)
    table.add_column("system")
    for title in ("n", *(title for title, _ in COLUMNS.values()), "ID fallback", "landmark n"):
        table.add_column(title, justify="right")
    for title, row in summaries.items():
        values = ["" if row[metric] is None else format(row[metric], COLUMNS[metric][1]) for metric in METRICS]
        table.add_row(title, str(row["n"]), *values, str(row["fallbacks"]), str(row["n_landmarks"]))
    console.print(table)


def systems(options: argparse.Namespace, names: list[str], console: Console) -> dict[str, Restore]:
    """The asked systems that can run here, by the title of their row; what cannot run is said."""
    found: dict[str, Restore] = {}
    for key in options.systems:
        try:
            if key == "lq":
                found["LQ input"] = unchanged
            elif key == "ours":
                for size in sorted({256, options.size}):
                    model = replace(model_options(options), face_size=size)
                    found[model.title] = ours(model, names)
            else:
                if not options.cached_only:
                    PEERS[key].load()
                found[peer_title(key)] = peer(key)
        except MissingDependencyError as error:
            console.print(f"{key} is left out: {error}", markup=False)
    return found


def model_options(options: argparse.Namespace) -> ModelOptions:
    return ModelOptions(
        model=options.model,
        steps=options.steps,
        seed=options.seed,
        fidelity=options.fidelity,
        prompt=options.prompt,
        captions=options.captions,
        no_queries=options.no_queries,
    )


def measure(options: argparse.Namespace, console: Console) -> None:
    if options.faces:
        make_pairs(options.faces, options.pairs, options.levels, options.size)
    levels = [options.bench / level for level in options.levels]
    every = names_of(options.bench / "gt", levels)
    names = sample(every, options.limit)
    evaluator = Evaluator(lambda line: console.print(line, markup=False), without=tuple(options.without))
    restores = systems(options, every, console)
    report: dict[str, Any] = {"command": sys.argv, "missing": evaluator.missing, "levels": {}}
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    sheets: dict[str, dict[str, Image.Image]] = {folder.name: {} for folder in levels}
    likeness = Likeness(options.bench / "dlib.npz") if options.faces else None
    # Face by face, so that the ground truth is looked at once for all systems, in the sample's random order,
    # so that what an interrupted run has written is a fair sample too.
    for start in range(0, len(names), BATCH):
        batch = names[start : start + BATCH]
        made = {
            (folder.name, title): run(restore, batch, folder)
            for folder in levels
            for title, restore in restores.items()
        }
        for name in batch:
            truth = as_array(read(options.bench / "gt" / name))
            for (level, title), pictures in made.items():
                row = evaluator.measure(name, truth, as_array(pictures[name]))
                tables.setdefault(level, {}).setdefault(title, {})[name] = row
                if likeness:
                    restored = restores[title] is not unchanged
                    if restored:
                        likeness.see(
                            level, "LQ input", name, truth, as_array(read(options.bench / level / name)), keep=True
                        )
                    likeness.see(level, title, name, truth, as_array(pictures[name]), keep=not restored)
                if title.startswith("prefrestore") and (options.size == 256 or f"{options.size} px" in title):
                    sheets[level][name] = pictures[name]
        for level, faces in tables.items():
            summary = {title: summarise(list(rows.values())) for title, rows in faces.items()}
            report["levels"][level] = {"summary": summary, "faces": faces}
        if options.json:
            options.json.write_text(json.dumps(report, indent=1))
    for level in tables:
        show(console, level, report["levels"][level]["summary"])
    if likeness:
        truths = [as_array(read(options.bench / "gt" / name)) for name in names]
        report["likeness"] = likeness.report(console, names, groups_of(options.faces, names, truths))
        if options.json:
            options.json.write_text(json.dumps(report, indent=1))
    if options.sheet:
        if not any(sheets.values()):
            raise InvalidInputError("--sheet shows this model's pictures: add ours to --systems.")
        shown = sorted(names[:SHEET_FACES])
        for level, made in sheets.items():
            path = options.sheet.with_name(f"{options.sheet.stem}_{level}{options.sheet.suffix}")
            triples = [
                (read(options.bench / level / name), made[name], read(options.bench / "gt" / name)) for name in shown
            ]
            paired_sheet(triples).save(path)
            console.print(f"{path}: LQ, ours, HQ of {len(triples)} faces", markup=False)


def look(options: argparse.Namespace, console: Console) -> None:
    """Restore a folder without ground truth and write the pairs on one sheet."""
    if not options.sheet:
        raise InvalidInputError("--real needs --sheet: without ground truth there is only looking.")
    if options.prompt in ("right", "wrong"):
        raise InvalidInputError("--real has no captions: use --prompt none or empty.")
    names = names_of(options.real, [])
    made = run(ours(model_options(options), names), names, options.real)
    real_sheet([(read(options.real / name), made[name]) for name in names]).save(options.sheet)
    console.print(f"{options.sheet}: LQ, ours of {len(names)} faces", markup=False)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, default=BENCH, help="folder that holds gt and the levels")
    parser.add_argument("--faces", type=Path, help="folder of the data card: its newer val faces in place of --bench")
    parser.add_argument("--pairs", type=Path, default=Path("newer_faces"), help="where --faces keeps its pairs")
    parser.add_argument("--size", type=int, default=256, help="of --faces' pairs, px; 512 also shows 256 px enlarged")
    parser.add_argument("--levels", nargs="+", default=["mild", "severe"], help="beside gt, or presets of degrade")
    known = ["lq", "ours", *PEERS]
    parser.add_argument("--systems", nargs="+", choices=known, default=known)
    parser.add_argument("--limit", type=int, help="a fixed random sample of this many faces")
    parser.add_argument("--without", nargs="+", choices=MODELS, default=[], help="leave these metrics blank")
    parser.add_argument("--cached-only", action="store_true", help="do not load peers: read their cache")
    parser.add_argument("--model", type=Path, help="a pipeline folder in place of the bundled weights")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fidelity", type=float)
    parser.add_argument("--prompt", choices=PROMPTS, default="none")
    parser.add_argument("--captions", type=Path, help="captions.jsonl; by default two folders above gt")
    parser.add_argument("--no-queries", action="store_true", help="switch the semantic branch off")
    parser.add_argument("--json", type=Path, help="write every face's values here")
    parser.add_argument("--sheet", type=Path, help="write contact sheets (PNG)")
    parser.add_argument("--real", type=Path, help="a folder without ground truth; needs --sheet")
    options = parser.parse_args()
    if options.faces:
        options.bench = options.pairs
    options.captions = options.captions or options.bench.parent / "captions.jsonl"
    return options


def main() -> int:
    options = parse()
    # A table written to a file or a log must not be folded to the 80 columns assumed there.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    try:
        (look if options.real else measure)(options, console)
    except PrefRestoreError as error:
        console.print(f"error: {error}", markup=False)
        return 1
    return 0


def round_trip() -> None:
    """The autoencoder alone: decode(encode(face)) against the face; at 512 px with the last octave behind it."""
    parser = argparse.ArgumentParser(description=round_trip.__doc__)
    parser.add_argument("--faces", type=Path, default=BENCH / "gt", help="folder of aligned faces")
    parser.add_argument("--model", type=Path, help="a pipeline folder in place of the bundled weights")
    parser.add_argument("--size", type=int, choices=(256, 512), default=256, help="of the faces, px")
    parser.add_argument("--limit", type=int, help="a fixed random sample of this many faces")
    options = parser.parse_args()
    pipeline = load_preset_pipeline("compact", folder=options.model, face_size=options.size)
    evaluator = Evaluator()
    rows = []
    found = [path.name for path in options.faces.iterdir() if path.suffix in (".png", ".webp", ".jpg")]
    for path in (options.faces / name for name in sample(sorted(found), options.limit)):
        with Image.open(path) as image:
            # Enlarged faces would be no truth.
            if min(image.size) < options.size * 15 // 16:
                continue
            face = image.convert("RGB").resize((pipeline.face_size, pipeline.face_size), Image.Resampling.BOX)
        images = pipeline.prepare(face)
        with torch.no_grad():
            seen = core_view(images, pipeline.last_octave)
            latents = pipeline.autoencoder.encode(seen).latent * pipeline.autoencoder.config.scaling_factor
            told = Conditions(lq_latents=latents, condition=latents, images=images)
            # The input skip is for degraded faces: here it would let through what is to be rebuilt.
            skip, pipeline.input_skip = pipeline.input_skip, None
            rebuilt = pipeline.decode(latents, told if pipeline.last_octave else None)[0].permute(1, 2, 0).numpy()
            pipeline.input_skip = skip
        rows.append(evaluator.measure(path.stem, np.asarray(face), (rebuilt * 255).round().astype(np.uint8)))
    for metric in ("psnr", "identity", "lpips_alex", "landmarks"):
        values = [row[metric] for row in rows if row.get(metric) is not None]
        if values:
            Console().print(f"{metric}: {np.mean(values):.4f} (n = {len(values)})")


def fill() -> None:
    """Fill the cache of a peer's pictures."""
    parser = argparse.ArgumentParser(description=fill.__doc__)
    parser.add_argument("peer", choices=sorted(PEERS))
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    loaded: dict[str, Any] = {}
    start = time.process_time()
    for name in sample(sorted(path.name for path in options.folders[0].iterdir()), options.limit):
        for folder in options.folders:
            with Image.open(folder / name) as image:
                restore_cached(options.peer, image.convert("RGB"), loaded)
    print(f"{options.peer}: {time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    sys.exit(command(main, round_trip=round_trip, fill=fill, branch="branch", steering="branch:steering"))
