"""``prefrestore ablate``: what each part of the method buys, as one table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from prefrestore.cli.choices import Device
from prefrestore.cli.evaluate import Network


def ablate(
    lq: Annotated[Path, typer.Option(metavar="DIR", help="Degraded faces.")],
    reference: Annotated[Path, typer.Option(metavar="DIR", help="Their ground truth, by the same names.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the table.")],
    part: Annotated[
        list[str] | None,
        typer.Option(help="Only these: semantic, preference, adapters, fidelity, steps, guidance, solver."),
    ] = None,
    adapter: Annotated[
        list[str] | None, typer.Option(metavar="NAME=DIR", help="A preference adapter as a row of its own.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="A pipeline trained in another way, say in one stage, as a row."),
    ] = None,
    preset: Annotated[str, typer.Option(help="compact, or tiny (random weights, for tests).")] = "compact",
    samples: Annotated[int, typer.Option(min=1, help="Restorations a face; 2 or more give the spread.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise of every face; the same for all rows.")] = 0,
    without: Annotated[list[Network] | None, typer.Option(help="Leave this metric out; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="A fixed random sample of so many faces.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Faces whose conditions are computed together.")] = 8,
    device: Annotated[Device, typer.Option(help="auto: a GPU if there is one.")] = Device.auto,
) -> None:
    """Run the method without one part, or with another setting, on pairs of faces, and compare.

    Writes DIR/ablation.json and ablation.md. A stopped run goes on where it was. A picture that cannot be read
    is set aside, the rest goes on, and the exit status is 1.
    """
    from prefrestore.errors import InvalidInputError
    from prefrestore.evaluation.folders import face_set

    faces = face_set(lq.name, lq=lq, reference=reference, limit=limit)
    adapters, models = named_folders(adapter, "--adapter"), named_folders(model, "--model")
    if "pipeline" in models:
        raise InvalidInputError("--model: 'pipeline' is the name of the base in the results, choose another one")

    from prefrestore.cli.evaluate import evaluator_for, progress_bar, said, show
    from prefrestore.evaluation.ablation import PARTS, SHIPPED, variants
    from prefrestore.evaluation.columns import markdown
    from prefrestore.evaluation.provenance import metric_weights, pipeline_weights, versions
    from prefrestore.evaluation.results import Results
    from prefrestore.evaluation.run import run_sets
    from prefrestore.evaluation.systems import AS_LOADED, Restorer, System, Variant
    from prefrestore.files.atomic import written_beside
    from prefrestore.models.adapter import adapter_names, load_adapter
    from prefrestore.pipeline.load import load_pipeline, pick_device

    place = pick_device(device.value)
    pipeline = load_pipeline(preset, None, place, "float32", face_size="core")
    own = adapter_names(pipeline.transformer)
    if taken := set(own) & set(adapters):
        raise InvalidInputError(f"--adapter: the pipeline's own adapter is called '{taken.pop()}', choose another name")
    for name, folder in adapters.items():
        load_adapter(pipeline.transformer, folder, name)
    base = Variant(title=SHIPPED, adapter=own[0] if own else "")
    asked = [chosen for chosen in part or PARTS if chosen != "preference" or own]
    if "preference" in (part or ()) and not own:
        typer.echo("without preference is left out: this pipeline comes without a preference adapter", err=True)
    restorer = Restorer(pipeline, seed=seed, samples=samples)
    systems: dict[str, System] = {v.title: restorer.system(v) for v in variants(base, adapters, asked)}
    weights: dict[str, Any] = {"pipeline": pipeline_weights(pipeline)}
    for name, folder in models.items():
        other = load_pipeline(preset, folder, place, "float32", face_size="core")
        variant = Variant(title=f"model {name}", adapter=AS_LOADED)
        systems[variant.title] = Restorer(other, seed=seed, samples=samples).system(variant)
        weights[name] = pipeline_weights(other)

    metrics = evaluator_for([faces], samples, [network.value for network in without or []])
    settings = {
        "folders": faces.folders,
        "limit": limit,
        "samples": samples,
        "seed": seed,
        "blank": sorted(metrics.missing),
        "adapters": adapter_hashes(adapters),
        "pipeline": weights,
    }
    results = Results(output / "ablation.json", settings, resume=True)
    results.extra = {"missing": metrics.missing, "versions": versions(), "metrics": metric_weights(metrics.available)}
    with progress_bar(len(faces.faces) * len(systems)) as advance:
        run_sets([faces], systems, metrics, results, batch=batch, each=lambda title, item: advance())
    with written_beside(output / "ablation.md") as written:
        written.write_text(markdown(results.summaries(faces.title)) + "\n", encoding="utf-8")
    show(results)
    if not said(results, output):
        raise typer.Exit(1)


def named_folders(texts: list[str] | None, option: str) -> dict[str, Path]:
    """``NAME=DIR`` texts as folders by name.

    Raises:
        InvalidInputError: a text without a name, a name twice, or no such folder.
    """
    from prefrestore.errors import InvalidInputError

    found: dict[str, Path] = {}
    for text in texts or []:
        name, _, folder = text.partition("=")
        # PyTorch's modules and PEFT take the name into their keys, where a point would part it.
        if not re.fullmatch(r"[\w-]+", name) or not folder:
            raise InvalidInputError(f"{option} {text}: write NAME=DIR, the name of letters, digits, _ and -")
        if name in found:
            raise InvalidInputError(f"{option} {text}: the name '{name}' is there twice")
        if not Path(folder).is_dir():
            raise InvalidInputError(f"{option} {text}: {folder} is not a folder")
        found[name] = Path(folder)
    return found


def adapter_hashes(adapters: dict[str, Path]) -> dict[str, str]:
    """sha256 of each adapter's weights by its name; a folder that is no adapter is refused when it is loaded."""
    from prefrestore.files.fingerprints import file_hash

    return {name: file_hash(folder / "adapter_model.safetensors") for name, folder in adapters.items()}
