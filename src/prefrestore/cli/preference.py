"""``prefrestore preference``: fit a scorer to what people chose, and ask it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The learned face preference: fit it to judgements, and ask it.", no_args_is_help=True)

Scorer = Annotated[Path | None, typer.Option(help="A scorer's folder in place of the bundled one.")]


@app.command("fit", no_args_is_help=True)
def fit(
    judgements: Annotated[
        list[Path],
        typer.Option(help="JSONL, one judgement a line: first, second, choice, who, when. May be repeated."),
    ],
    output_dir: Annotated[Path, typer.Option(help="Where scorer/ and the run's state are written.")],
    start_from: Annotated[str, typer.Option(help="bundled, none (new weights), or a scorer's folder.")] = "bundled",
    steps: Annotated[int, typer.Option(min=1, help="Length of the schedule.")] = 300,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs a step.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="The peak.")] = 2e-4,
    held_out: Annotated[float, typer.Option(help="Share of the judgements to hold out.")] = 0.2,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad lines out and count them.")] = False,
    seed: Annotated[int, typer.Option(help="Of the split, new weights and batches.")] = 0,
) -> None:
    """Train a scorer on pairs that people judged; it resumes where it stopped."""
    from prefrestore.preference import fit as judged
    from prefrestore.training.processes import ended_in_order, log_on_main

    config = judged.Config(
        judgements=tuple(judgements),
        output_dir=output_dir,
        start_from=start_from,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        held_out=held_out,
        skip_bad=skip_bad,
        seed=seed,
    )
    with ended_in_order():
        judged.run(config, log=log_on_main)


@app.command("score", no_args_is_help=True)
def score(
    images: Annotated[list[Path], typer.Argument(help="Aligned, square faces.")],
    scorer: Scorer = None,
) -> None:
    """Print a score for each aligned face, the best first; only differences between scores mean something."""
    import numpy as np

    from prefrestore.data.faces import read_face
    from prefrestore.models.scorer import load_bundled_scorer, load_scorer, score_all
    from prefrestore.preference.scorer_trainer import to_unit

    model = load_bundled_scorer() if scorer is None else load_scorer(scorer)
    faces = np.stack([read_face(path, model.config.image_size) for path in images])
    scores = score_all(model, to_unit(faces)).tolist()
    for value, path in sorted(zip(scores, images, strict=True), key=lambda row: -row[0]):
        typer.echo(f"{value:8.3f}  {path}")


@app.command("show")
def show(scorer: Scorer = None) -> None:
    """Print what a scorer is: its size, its configuration and its checked hashes."""
    from prefrestore.files.weights import verify
    from prefrestore.models.scorer import bundled_scorer_folder, load_scorer

    folder = bundled_scorer_folder() if scorer is None else scorer
    model = load_scorer(folder)
    typer.echo(f"{folder}: {sum(p.numel() for p in model.parameters()):,} parameters")
    for name, value in model.config.items():
        if not name.startswith("_"):
            typer.echo(f"  {name}: {value}")
    for name, digest in verify(folder).items():
        typer.echo(f"  {name}  {digest}")
