"""What the preference stage does to the spread of the restorations, and to their fidelity: one table a level.

    python benchmarks/preference.py spread --adapter nft=runs/nft/preference --adapter grpo=runs/grpo/preference
    python benchmarks/preference.py spread --limit 24 --seeds 4 --adapter nft=runs/nft/preference --sheet sheet.png

Rows are the base (no adapter) and each adapter; every value is the mean over a face's seeds, then over the faces. The
same noise goes into all rows. The JSON grows face by face, and a stopped run goes on from it.
docs/evaluation.md has the protocol.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from parts.sheets import seed_sheet
from parts.systems import BENCH
from PIL import Image

from prefrestore.cli.ablate import adapter_hashes, named_folders
from prefrestore.cli.evaluate import progress_bar
from prefrestore.errors import InvalidInputError, PrefRestoreError
from prefrestore.evaluation.columns import COLUMNS, markdown, used
from prefrestore.evaluation.evaluator import MODELS, Evaluator
from prefrestore.evaluation.folders import MeasuredSet
from prefrestore.evaluation.measure import Measured
from prefrestore.evaluation.protocols import PROTOCOLS, protocol_sets
from prefrestore.evaluation.provenance import metric_weights, pipeline_weights, versions
from prefrestore.evaluation.results import Results
from prefrestore.evaluation.run import run_sets
from prefrestore.evaluation.systems import Restorer, Variant
from prefrestore.files.atomic import written_beside
from prefrestore.models.adapter import load_adapter
from prefrestore.pipeline.load import load_pipeline, pick_device

BASE = "base"
SHEET_FACES, SHEET_SEEDS = 8, 4


def changes(results: Results, title: str) -> str:
    """Each adapter against the base, over the faces that both have: the change of the mean in percent."""
    rows = results.rows[title]
    keys = used(results.summaries(title).values())
    lines = ["| against base | n | " + " | ".join(COLUMNS[key].title for key in keys) + " |"]
    lines.append("| --- | ---: |" + " ---: |" * len(keys))
    for system in rows:
        if system == BASE:
            continue
        shared = [face for face in rows[system] if face in rows[BASE]]
        before, after = ([rows[name][face] for face in shared] for name in (BASE, system))
        cells = [change(key, before, after) for key in keys]
        lines.append(f"| {system} | {len(shared)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def change(key: str, before: list[Any], after: list[Any]) -> str:
    """The change of a column's mean: in percent, or for the entropy (which may be below 0) as a difference."""
    pairs = [(a[key], b[key]) for a, b in zip(before, after, strict=True) if None not in (a.get(key), b.get(key))]
    if not pairs:
        return ""
    first, second = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    if key == "latent_entropy":
        return f"{second - first:+.3f} nats"
    return f"{100 * (second / first - 1):+.1f} %" if first else ""


def sheet(sets: list[MeasuredSet], restorer: Restorer, names: list[str], path: Path) -> list[Path]:
    """A sheet for each level and adapter: a row a face, its seeds without the adapter, then with it."""
    from prefrestore.pictures.read import read_photo

    written = []
    for faces in sets:
        chosen = sorted(faces.faces[:SHEET_FACES], key=lambda face: face.name)
        pictures = [read_photo(face.lq).rgb8() for face in chosen if face.lq is not None]
        made = {
            name: restorer.system(Variant(title=name, adapter="" if name == BASE else name))(chosen, pictures)
            for name in [BASE, *names]
        }
        for name in names:
            rows = [
                [[Image.fromarray(sample.picture) for sample in made[side][face]] for side in (BASE, name)]
                for face in range(len(chosen))
            ]
            target = path.with_name(f"{path.stem}_{faces.title}_{name}{path.suffix}")
            with written_beside(target) as part:
                seed_sheet([Image.fromarray(picture) for picture in pictures], rows).save(part)
            written.append(target)
    return written


def run(options: argparse.Namespace) -> bool:
    adapters = named_folders(options.adapter, "--adapter")
    if {BASE, ""} & set(adapters):
        raise InvalidInputError(f"--adapter: '{BASE}' is the row without one, choose another name")
    if options.sheet and not adapters:
        raise InvalidInputError("--sheet shows before and after: name an adapter")
    both = protocol_sets(PROTOCOLS["bench"], options.bench, limit=options.limit)
    sets = [faces for faces in both if faces.title in options.levels]
    place = pick_device(options.device)
    pipeline = load_pipeline(options.preset, options.model, place, "float32", preference=False, face_size="core")
    for name, folder in adapters.items():
        load_adapter(pipeline.transformer, folder, name)
    if options.sheet:
        restorer = Restorer(pipeline, seed=options.seed, samples=SHEET_SEEDS)
        for path in sheet(sets, restorer, list(adapters), options.sheet):
            print(path)
        if options.sheet_only:
            return True
    restorer = Restorer(pipeline, seed=options.seed, samples=options.seeds, at_once=options.at_once)
    flow = {"steps": options.steps, "fidelity": options.fidelity, "solver": options.solver}
    systems = {
        name: restorer.system(Variant(title=name, adapter="" if name == BASE else name, **flow))
        for name in [BASE, *adapters]
    }
    evaluator = Evaluator(lambda line: print(line, file=sys.stderr), without=tuple(options.without))
    asked = ("num_inference_steps", options.steps), ("fidelity", options.fidelity), ("solver", options.solver)
    settings = {
        "folders": {faces.title: faces.folders for faces in sets},
        "limit": options.limit,
        "seeds": options.seeds,
        "seed": options.seed,
        "blank": sorted(evaluator.missing),
        "adapters": adapter_hashes(adapters),
        "pipeline": pipeline_weights(pipeline),
        "flow": {key: pipeline.config[key] if value is None else value for key, value in asked},
    }
    results = Results(options.json, settings, resume=True)
    results.extra = {"command": sys.argv, "missing": evaluator.missing, "versions": versions()}
    results.extra["metrics"] = metric_weights(evaluator.available)
    with progress_bar(sum(len(faces.faces) for faces in sets) * len(systems)) as advance:

        def each(title: str, item: Any) -> None:
            advance()
            if not isinstance(item, Measured):
                print(f"set aside: {title}, {item.face.name}: {item.reason}", file=sys.stderr)

        run_sets(sets, systems, evaluator, results, batch=options.batch, each=each)
    for faces in sets:
        print(f"\n{faces.title}, {options.seeds} seeds a face\n\n{markdown(results.summaries(faces.title), 'row')}")
        if adapters:
            print(f"\n{changes(results, faces.title)}")
    return not results.lost


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, default=BENCH, help="folder that holds gt, mild and severe")
    parser.add_argument("--levels", nargs="+", choices=["mild", "severe"], default=["mild", "severe"])
    parser.add_argument("--adapter", action="append", metavar="NAME=DIR", help="a preference adapter: a row")
    parser.add_argument("--seeds", type=int, default=8, help="restorations a face")
    parser.add_argument("--limit", type=int, help="a fixed random sample of this many faces")
    parser.add_argument("--without", nargs="+", choices=MODELS, default=["lpips_vgg"], help="leave these metrics blank")
    parser.add_argument("--steps", type=int, help="steps of the flow; by the preset")
    parser.add_argument("--fidelity", type=float, help="by the preset")
    parser.add_argument("--solver", help="euler or dpm; by the preset")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", default="compact")
    parser.add_argument("--model", type=Path, help="a pipeline folder in place of the bundled weights")
    parser.add_argument("--batch", type=int, default=4, help="faces whose conditions are computed together")
    parser.add_argument("--at-once", type=int, default=8, help="restorations sampled and decoded together")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--json", type=Path, default=Path("preference.json"), help="every face's values")
    parser.add_argument("--sheet", type=Path, help=f"{SHEET_SEEDS} seeds x {SHEET_FACES} faces, before and after (PNG)")
    parser.add_argument("--sheet-only", action="store_true", help="write the sheet and measure nothing")
    return parser.parse_args()


def main() -> int:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        return 0 if run(options) else 1
    except PrefRestoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
