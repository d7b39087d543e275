"""``prefrestore evaluate``: restorations measured, with everything that a reader needs to trust the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from prefrestore.evaluation.evaluator import Evaluator
    from prefrestore.evaluation.folders import MeasuredSet
    from prefrestore.evaluation.results import Results

from prefrestore.cli.choices import Device
from prefrestore.cli.face_options import FaceSize


class Network(str, Enum):
    """Metrics that take a network and may be left out."""

    lpips_alex = "lpips_alex"
    lpips_vgg = "lpips_vgg"
    dists = "dists"
    identity = "identity"
    dlib = "dlib"
    landmarks = "landmarks"
    musiq = "musiq"


def evaluate(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the report.")],
    restored: Annotated[Path | None, typer.Option(metavar="DIR", help="Measure these restorations.")] = None,
    lq: Annotated[Path | None, typer.Option(metavar="DIR", help="Restore these faces, then measure.")] = None,
    reference: Annotated[Path | None, typer.Option(metavar="DIR", help="Ground truth, by the same names.")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="celeba-test, lfw-test, webphoto-test, wider-test, celebchild, ntire-rwfr or bench."),
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the protocol's pictures.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Restorations a face; 2 or more give the spread.")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the flow; by the preset.")] = None,
    fidelity: Annotated[float | None, typer.Option(min=0, max=1, help="As in restore.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="As in restore.")] = None,
    solver: Annotated[str | None, typer.Option(help="euler or dpm; by the preset.")] = None,
    no_preference: Annotated[bool, typer.Option("--no-preference", help="Without the preference adapter.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise of every face.")] = 0,
    preset: Annotated[str, typer.Option(help="compact, or tiny (random weights, for tests).")] = "compact",
    model: Annotated[Path | None, typer.Option(metavar="DIR", help="Pipeline folder to use instead.")] = None,
    face_size: FaceSize = None,
    inception: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Inception's weights (safetensors), for FID and KID.")
    ] = None,
    reference_set: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Pictures (or their features) for FID and KID, FFHQ in papers."),
    ] = None,
    recogniser: Annotated[
        Path | None, typer.Option(metavar="FILE", help="ArcFace's or AdaFace's weights, for identity by name.")
    ] = None,
    likeness_threshold: Annotated[
        list[str] | None,
        typer.Option(metavar="[SET=]COSINE", help="Less like the input than this counts; may be repeated."),
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(metavar="CSV", help="CLIP-IQA, MANIQA, Q-Align, NIQE by another program.")
    ] = None,
    without: Annotated[list[Network] | None, typer.Option(help="Leave this metric out; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="A fixed random sample of so many faces.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Faces restored together.")] = 8,
    device: Annotated[Device, typer.Option(help="auto: a GPU if there is one.")] = Device.auto,
) -> None:
    """Measure restorations, of folders or of a named test set.

    Writes DIR/report.json, report.csv and report.html. A metric whose weights are missing is left blank and
    the report says why. A picture that cannot be read is set aside, the rest goes on, and the exit status is 1.
    """
    from prefrestore.errors import InvalidInputError
    from prefrestore.evaluation.folders import face_set
    from prefrestore.evaluation.gate import read_scores, thresholds
    from prefrestore.evaluation.protocols import protocol_of, protocol_sets, remarks

    if (protocol is None) != (data is None):
        raise InvalidInputError("--protocol and --data belong together: the test set's name, and where it lies")
    if protocol is not None and data is not None:
        if lq or reference:
            raise InvalidInputError("--protocol names its own folders below --data: leave --lq and --reference out")
        known = protocol_of(protocol)
        sets = protocol_sets(known, data, restored=restored, limit=limit)
    else:
        known = None
        title = (restored or lq or Path("faces")).name
        sets = [face_set(title, lq=lq, restored=restored, reference=reference, limit=limit)]
    if restored is not None and samples > 1:
        raise InvalidInputError("--samples needs restoring: a folder of restorations holds one for each face")
    if reference_set is not None and inception is None:
        raise InvalidInputError("--reference-set is for FID and KID, which need --inception")

    if likeness_threshold and recogniser is None:
        raise InvalidInputError("--likeness-threshold is for the likeness to the input, which needs --recogniser")
    limits = thresholds([faces.title for faces in sets], known.thresholds if known else {}, likeness_threshold or [])
    given = read_scores(scores) if scores is not None else {}

    from prefrestore.evaluation.page import Gallery, write_page
    from prefrestore.evaluation.provenance import pipeline_weights, versions
    from prefrestore.evaluation.reference_set import Distribution
    from prefrestore.evaluation.results import Results
    from prefrestore.evaluation.run import run_sets
    from prefrestore.evaluation.systems import Restorer, System, Variant, finished
    from prefrestore.pipeline.load import load_pipeline, pick_device

    metrics = evaluator_for(sets, samples, [network.value for network in without or []], recogniser)
    systems: dict[str, System]
    settings: dict[str, Any] = {
        "protocol": protocol,
        "folders": {faces.title: faces.folders for faces in sets},
        "limit": limit,
        "likeness_thresholds": limits,
    }
    if restored is not None:
        systems, pipeline = {"restored": finished}, None
    else:
        wanted: dict[str, Any] = {"preference": not no_preference, "face_size": face_size}
        pipeline = load_pipeline(preset, model, pick_device(device.value), "float32", **wanted)
        variant = Variant(
            title="prefrestore",
            steps=steps,
            guidance_scale=guidance_scale,
            fidelity=fidelity,
            solver=solver,
        )
        systems = {variant.title: Restorer(pipeline, seed=seed, samples=samples).system(variant)}
        settings |= {"samples": samples, "seed": seed, "no_preference": no_preference}
        settings |= {"face_size": pipeline.face_size} | _flow(pipeline, variant)
    results = Results(output / "report.json", settings)
    results.extra = {
        "protocol": known and {"title": known.title, "source": known.source, "count": known.count, "side": known.side},
        "remarks": [],
        "missing": metrics.missing,
        "versions": versions(),
        "pipeline": {"pipeline": pipeline_weights(pipeline)} if pipeline is not None else {},
    }
    distance = Distribution(inception, reference_set, reference_folder(sets), results, metrics.available)
    if metrics.named is None:
        blank = "its network was not named (--recogniser)"
        metrics.missing |= {"named_degrees": blank, "input_likeness": blank}
    elif not any("lq" in faces.folders for faces in sets):
        metrics.missing["input_likeness"] = "the inputs were not named (--lq)"
    if metrics.named is not None:
        named = {"network": f"{metrics.named.kind} ({recogniser and recogniser.name})", "sha256": metrics.named.sha256}
        results.extra["metrics"]["named identity, likeness to input"] = named
    gallery, sides = Gallery(), set()
    with progress_bar(sum(len(faces.faces) for faces in sets) * len(systems)) as advance:

        def each(title: str, item: Any) -> None:
            advance()
            if hasattr(item, "row"):
                gallery.add(title, item)
                sides.add((item.source if item.reference is None else item.reference).shape[0])

        features = run_sets(
            sets,
            systems,
            metrics,
            results,
            batch=batch,
            extractor=distance.extractor,
            thresholds=limits,
            each=each,
        )
    distance.compare(features)
    if given and not results.give(given):
        raise InvalidInputError(f"{scores} names none of the measured faces")
    if known is not None:
        results.extra["remarks"] += remarks(known, sets, sides, limit)
        if known.allowed is not None:
            judge_all(results, systems, distance.over_all(features), known.allowed)
    results.save()
    results.save_csv(output / "report.csv")
    title = known.title if known else sets[0].title
    write_page(results, gallery, output / "report.html", f"prefrestore evaluate: {title}")
    show(results)
    if not said(results, output):
        raise typer.Exit(1)


def judge_all(results: Results, systems: Iterable[str], fid: Mapping[str, float], allowed: int) -> None:
    """Add a challenge's verdict on each system to the report, and say it."""
    from prefrestore.evaluation.gate import judge

    for system in systems:
        verdict = judge([rows.get(system, {}).values() for rows in results.rows.values()], fid.get(system), allowed)
        results.extra.setdefault("verdict", {})[system] = verdict.as_dict()
        results.extra["remarks"].append(verdict.sentence(system))


def evaluator_for(
    sets: Sequence[MeasuredSet], samples: int, without: Sequence[str], recogniser: Path | None = None
) -> Evaluator:
    """The evaluator that these sets need: without references and with one sample nothing can be compared."""
    from prefrestore.evaluation.evaluator import PAIRED, Evaluator

    needed = samples > 1 or any(faces.has_references for faces in sets)
    idle = () if needed else PAIRED
    metrics = Evaluator(lambda line: typer.echo(line, err=True), without=(*without, *idle), recogniser=recogniser)
    for metric in idle:
        del metrics.missing[metric]
    return metrics


def reference_folder(sets: Sequence[MeasuredSet]) -> Path | None:
    """The folder of the references, which all sets of a run share."""
    found = sets[0].folders.get("reference")
    return Path(found) if found else None


def _flow(pipeline: Any, variant: Any) -> dict[str, Any]:
    """How the flow is run, the preset's defaults filled in."""
    asked = {
        "num_inference_steps": variant.steps,
        "guidance_scale": variant.guidance_scale,
        "fidelity": variant.fidelity,
        "solver": variant.solver,
    }
    return {key: pipeline.config[key] if value is None else value for key, value in asked.items()}


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[], None]]:
    """A bar on the error stream, if that is a terminal; gives the function that advances it by one."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


def show(results: Results) -> None:
    """Print a table for each set."""
    from prefrestore.evaluation.columns import markdown

    for title in results.rows:
        typer.echo(f"\n{title}\n{markdown(results.summaries(title))}")


def said(results: Results, output: Path) -> bool:
    """Say what was set aside and where the report is; whether nothing was lost."""
    for title, aside in results.aside.items():
        for face, reason in aside.items():
            typer.echo(f"set aside: {title}, {face}: {reason}", err=True)
    for sentence in results.extra.get("remarks", []):
        typer.echo(f"note: {sentence}", err=True)
    typer.echo(f"\n{output}" + (f", {results.lost} set aside" if results.lost else ""))
    return not results.lost
