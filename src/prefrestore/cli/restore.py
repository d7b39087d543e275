"""``prefrestore restore``: photos in, the same photos with their faces restored out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from prefrestore.cli.choices import Chosen, Device, Engine, Format, Offload, Precision, named, told
from prefrestore.cli.face_options import (
    Faces,
    FaceSize,
    KeepLikeness,
    MaxYaw,
    MinFace,
    MinScore,
    SharpEnough,
    Strength,
    face_options,
)
from prefrestore.cli.report import report
from prefrestore.cli.streams import streams as in_place_of_streams


def restore(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Photos, globs ('a/**/*.jpg'), folders; - reads one.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", parser=named, help="Folder; for one photo a file, or -.")
    ],
    aligned: Annotated[bool, told("aligned", "--aligned")] = False,
    faces: Faces = None,
    strength: Strength = None,
    min_face: MinFace = None,
    max_yaw: MaxYaw = None,
    min_score: MinScore = None,
    sharp_enough: SharpEnough = None,
    keep_likeness: KeepLikeness = True,
    prompt: Annotated[str | None, told("prompt")] = None,
    captions: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="JSON or JSONL of image and caption; 'txt': NAME.txt beside each photo."),
    ] = None,
    steps: Annotated[int | None, told("steps")] = None,
    seed: Annotated[int, told("seed")] = 0,
    fidelity: Annotated[float | None, told("fidelity")] = None,
    guidance_scale: Annotated[float | None, told("guidance_scale")] = None,
    reference: Annotated[bool, told("reference", "--reference")] = False,
    sample_tokens: Annotated[bool, told("sample_tokens", "--sample-tokens")] = False,
    samples: Annotated[int | None, told("samples")] = None,
    uncertainty: Annotated[bool, told("uncertainty", "--uncertainty")] = False,
    choose: Annotated[Chosen | None, told("choice")] = None,
    scale: Annotated[int, told("scale")] = 1,
    background: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=named, help="Super-resolution model (spandrel) for the rest.")
    ] = None,
    kind: Annotated[Format | None, told("format", "--format")] = None,
    suffix: Annotated[str, typer.Option(metavar="TEXT", help="Put behind the outputs' names: _restored.")] = "",
    quality: Annotated[int | None, told("quality")] = None,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="Refuse larger photos; raise it for large scans (178956970).")
    ] = None,
    crops: Annotated[bool, typer.Option("--crops", help="Also write each face before and after.")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Also write before beside after.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Photos in hand at a time.")] = 2,
    device: Annotated[Device, typer.Option(help="auto: a GPU if there is one.")] = Device.auto,
    dtype: Annotated[Precision, typer.Option(help="Precision of the model.")] = Precision.float32,
    offload: Annotated[
        Offload, typer.Option(help="Less GPU memory: weights come by component (model) or layer (sequential).")
    ] = Offload.none,
    tile: Annotated[
        bool, typer.Option("--tile", help="Less GPU memory: the paper's autoencoder in tiles, not quite the same.")
    ] = False,
    preset: Annotated[str, typer.Option(help="compact, or tiny (random weights, for tests).")] = "compact",
    model: Annotated[
        Path | None, typer.Option(metavar="DIR", parser=named, help="Pipeline folder to use in place of the package's.")
    ] = None,
    face_size: FaceSize = None,
    adapter: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=named, help="Preference adapter in place of the package's."),
    ] = None,
    no_preference: Annotated[
        bool, typer.Option("--no-preference", help="The base model, without its preference adapter.")
    ] = False,
    batch_faces: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Exactly N faces a model call, of several photos.")
    ] = None,
    engine: Annotated[Engine, typer.Option(help="ray: on a Ray cluster.")] = Engine.local,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Of --engine ray: models; one a GPU, or one a machine.")
    ] = None,
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", help="Leave out what was made before from the same bytes and settings."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only find faces and say what would be written.")] = False,
) -> None:
    """Restore the faces in photos.

    Each output keeps its input's name, in the input's format or PNG or JPEG, with a record NAME.json beside it. A
    file that fails, or shows no face, is reported, the others are done, and the exit status is 1.
    """
    chosen = face_options(
        faces,
        strength,
        keep_likeness=keep_likeness,
        min_face=min_face,
        max_yaw=max_yaw,
        min_score=min_score,
        sharp_enough=sharp_enough,
    )

    from prefrestore.pictures.formats import MAX_PIXELS
    from prefrestore.restoration.batch import PhotoRestorer, run_tasks
    from prefrestore.restoration.captions import with_captions
    from prefrestore.restoration.options import RestoreOptions
    from prefrestore.restoration.plan import make_plan
    from prefrestore.restoration.recipe import Recipe
    from prefrestore.restoration.standing import Standings

    options = RestoreOptions(
        **chosen,
        prompt=prompt,
        steps=steps,
        seed=seed,
        fidelity=fidelity,
        guidance_scale=guidance_scale,
        samples=samples,
        uncertainty=uncertainty,
        choice=choose.value if choose else None,
        scale=scale,
        aligned=aligned,
        reference=reference,
        sample_tokens=sample_tokens,
        max_pixels=max_pixels or MAX_PIXELS,
    )
    recipe = Recipe(
        options=options,
        device=device.value,
        dtype=dtype.value,
        offload=offload.value,
        tile=tile,
        preset=preset,
        model=model,
        face_size=face_size,
        preference=adapter or not no_preference,
        background=background,
        crops=crops,
        compare=compare,
        quality=quality,
        batch_faces=batch_faces,
    )
    with in_place_of_streams(inputs, output) as streams:
        plan = make_plan(streams.inputs, streams.output, kind=kind.value if kind else None, name_suffix=suffix)
        if captions is not None:
            plan = replace(plan, tasks=with_captions(plan.tasks, captions))
        streams.check(plan.tasks, beside=crops or compare or uncertainty)
        if engine is Engine.ray and not dry_run:
            from prefrestore.engines.manifest import MANIFEST_NAME, Manifest
            from prefrestore.engines.ray_data import restore_on_ray

            outcomes = restore_on_ray(
                plan.tasks,
                recipe,
                manifest=Manifest(streams.folder_of_output / MANIFEST_NAME),
                settings=recipe.settings(),
                skip_existing=skip_existing,
                jobs=jobs,
                device=device.value,
                workers=workers,
            )
        else:
            earlier = Standings(recipe.settings()) if skip_existing else None
            work = not dry_run and any(earlier is None or not earlier.is_done(task) for task in plan.tasks)
            restorer = recipe() if work else PhotoRestorer(None, options)
            outcomes = run_tasks(plan.tasks, restorer, jobs=jobs, earlier=earlier)
        failed = [sentence for _, sentence in plan.failed]
        outcomes = streams.named(outcomes)
        well = report(outcomes, len(plan.tasks), failed, plan.notes, to_stderr=streams.to_stdout)
        streams.send(plan.tasks)
    if not well:
        raise typer.Exit(1)
