"""The preference scorer on people it never saw: which of two pictures is better, and is it as sure as it is right.

    python benchmarks/preference.py scorer --reliability reliability.png
    python benchmarks/preference.py scorer --faces 24 --restored 8 --limit 16      a quick look
    python benchmarks/preference.py scorer --scorer out/scorer --model out/model   another scorer, another restorer

Three tables: pairs of known order by kind (ladders of `prefrestore.preference.known_order` on held-out faces); ties,
which should come out near 0.5; and sharp faces against this package's own restorations of the bench.

The rule by which a sharp face is ranked over our output "as often as it should": the sharp face is the better one by
construction, so the share is right when the scorer is as sure as it is right, that is, when its mean confidence lies
inside the share's 95 % interval; and pairs that look alike (the autoencoder's round trip) must stay near 0.5, which a
scorer that went by the traces of our decoder would not manage.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from prefrestore.data.faces import FaceSet, load_face_set, read_face
from prefrestore.errors import MissingDependencyError, PrefRestoreError, WeightsError
from prefrestore.files.cache import cache_dir
from prefrestore.files.weights import bundled_folder, verify
from prefrestore.models.scorer import PreferenceScorer, load_bundled_scorer, load_scorer, score_all
from prefrestore.preference.bradley_terry import reliability, wilson_interval
from prefrestore.preference.known_order import preference_of
from prefrestore.preference.reliability import reliability_diagram
from prefrestore.preference.restored import restored_ladders
from prefrestore.preference.scorer_trainer import held_out_margins, to_unit

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
BATCH = 4


def probability(margins: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-margins))


def table_of(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table


def known_order(margins: dict[str, np.ndarray], console: Console, picture: Path | None) -> dict[str, Any]:
    """Accuracy and calibration by kind and over all, and how near to 0.5 the ties are."""
    sure = {kind: values for kind, values in margins.items() if preference_of(kind) == 1}
    table = table_of("pairs of known order, held-out people", "kind", "pairs", "right", "95 %", "confidence", "ECE")
    report: dict[str, Any] = {}
    for kind, values in (sure | {"all": np.concatenate(list(sure.values()))}).items():
        found = reliability(values)
        low, high = wilson_interval(found.accuracy, found.n)
        cells = (f"{found.accuracy:.3f}", f"{low:.3f} to {high:.3f}", f"{found.mean_confidence:.3f}")
        table.add_row(kind, str(found.n), *cells, f"{found.expected_calibration_error:.3f}")
        report[kind] = {"n": found.n, "accuracy": found.accuracy, "ece": found.expected_calibration_error}
    console.print(table)
    console.print("\n".join(found.lines()), markup=False)
    if picture:
        reliability_diagram(found, "preference scorer, pairs of held-out people").save(picture)
        console.print(f"{picture}: the reliability diagram", markup=False)
    ties = table_of("ties, held-out people", "kind", "pairs", "mean |p - 0.5|", "first ranked higher")
    for kind in sorted(set(margins) - set(sure)):
        values = margins[kind]
        away, first = float(np.abs(probability(values) - 0.5).mean()), float((values > 0).mean())
        ties.add_row(kind, str(len(values)), f"{away:.3f}", f"{first:.3f}")
        report[kind] = {"n": len(values), "away_from_half": away, "first_higher": first}
    console.print(ties)
    return report


def against_truth(
    scorer: PreferenceScorer, pipeline: Any, bench: Path, limit: int | None, console: Console
) -> dict[str, Any]:
    """How often the sharp face is ranked over our restoration of it, and ours over the degraded input."""
    names = sorted(path.name for path in (bench / "gt").iterdir() if path.suffix == ".png")
    rng = np.random.default_rng(0)
    names = sorted(rng.permutation(names)[:limit]) if limit else names
    distance = _lpips(console)
    columns = ("pairs", "sharp over ours", "95 %", "confidence", "as it should", "ours over input")
    table = table_of("sharp faces against our own output", "level", *columns)
    report: dict[str, Any] = {}
    for level in ("mild", "severe"):
        margins, gains, far = [], [], []
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            truth, lq = (
                to_unit(np.stack([read_face(bench / part / name, pipeline.face_size) for name in batch]))
                for part in ("gt", level)
            )
            generators = [torch.Generator().manual_seed(start + place) for place in range(len(batch))]
            ours = pipeline(lq * 2 - 1, generator=generators, output_type="pt").images.float()
            ours = (ours * 255).round() / 255
            scores = [score_all(scorer, images) for images in (truth, ours, lq)]
            margins += (scores[0] - scores[1]).tolist()
            gains += (scores[1] - scores[2]).tolist()
            if distance is not None:
                with torch.no_grad():
                    far += distance(truth * 2 - 1, ours * 2 - 1).flatten().tolist()
        rows = {level: np.array(margins)}
        if far:
            order = np.argsort(far)
            for part, index in zip(("nearest", "middle", "farthest"), np.array_split(order, 3), strict=True):
                rows[f"  {part} third by LPIPS"] = np.array(margins)[index]
        for title, values in rows.items():
            share, sure = float((values > 0).mean()), float(probability(np.abs(values)).mean())
            low, high = wilson_interval(share, len(values))
            verdict = "yes" if low <= sure <= high else "no"
            gain = f"{np.mean(np.array(gains) > 0):.3f}" if title == level else ""
            interval = f"{low:.3f} to {high:.3f}"
            table.add_row(title, str(len(values)), f"{share:.3f}", interval, f"{sure:.3f}", verdict, gain)
            report[f"{level}{title.removeprefix(level)}"] = {"n": len(values), "share": share, "confidence": sure}
        report[level]["ours_over_input"] = float(np.mean(np.array(gains) > 0))
    console.print(table)
    console.print("ours over input is for information: which of the two is better nobody has said.")
    return report


def _lpips(console: Console) -> Any:
    from prefrestore.metrics.lpips import LPIPS

    try:
        return LPIPS("alex").eval()
    except (MissingDependencyError, WeightsError) as error:
        console.print(f"no split by visible distance: {error}", markup=False)
        return None


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder with faces/val, which nothing is trained on")
    parser.add_argument("--bench", type=Path, default=SHARED / "bench", help="folder that holds gt, mild and severe")
    parser.add_argument("--scorer", type=Path, help="a scorer's folder in place of the bundled one")
    parser.add_argument("--model", type=Path, help="a pipeline folder in place of the bundled weights")
    parser.add_argument("--faces", type=int, help="how many held-out faces get ladders (default: all)")
    parser.add_argument("--restored", type=int, default=48, help="how many held-out faces are restored; 0 for none")
    parser.add_argument("--limit", type=int, help="a fixed random sample of this many bench faces; 0 leaves them out")
    parser.add_argument("--cache", type=Path, default=cache_dir() / "scorer", help="restorations are kept here")
    parser.add_argument("--reliability", type=Path, help="write the reliability diagram here (PNG)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


def spread(faces: FaceSet, count: int | None) -> FaceSet:
    """`count` faces, evenly over the set."""
    return faces.subset(np.linspace(0, len(faces) - 1, min(count or len(faces), len(faces))).astype(int))


def main() -> int:
    options = parse()
    console = Console() if sys.stdout.isatty() else Console(width=140)
    try:
        from prefrestore.pipeline.build import load_preset_pipeline

        scorer = load_scorer(options.scorer) if options.scorer else load_bundled_scorer()
        faces = load_face_set(options.data, "val", size=scorer.config.image_size)
        pipeline = load_preset_pipeline("compact", folder=options.model, face_size="core")
        pipeline.set_progress_bar_config(disable=True)
        restored = None
        if options.restored:
            restored = restored_ladders(
                lambda: pipeline,
                verify(options.model or bundled_folder("compact")),
                faces,
                options.cache,
                count=options.restored,
                seed=1,
                log=lambda line: console.print(line, markup=False),
            )
        report: dict[str, Any] = {"command": sys.argv}
        margins = held_out_margins(scorer, spread(faces, options.faces), restored, seed=1)
        report["known_order"] = known_order(margins, console, options.reliability)
        if options.limit != 0:
            report["bench"] = against_truth(scorer, pipeline, options.bench, options.limit, console)
        if options.json:
            options.json.write_text(json.dumps(report, indent=1))
    except PrefRestoreError as error:
        console.print(f"error: {error}", markup=False)
        return 1
    return 0
