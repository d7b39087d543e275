"""What a run says on the terminal: each photo as it is finished, and the sums."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefrestore.restoration.batch import Outcome


def report(outcomes: Iterable[Outcome], total: int, failed: Sequence[str], notes: Sequence[str] = ()) -> bool:
    """Print each outcome as it comes and the sums at the end; returns whether all went well.

    Args:
        total: how many outcomes there will be.
        failed: sentences about inputs that led to no picture at all.
        notes: sentences about pictures that were left out.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from prefrestore.restoration.batch import count

    # Names of files are printed as they are: no markup, no colours guessed, no folding.
    console = Console(markup=False, highlight=False, soft_wrap=True)
    errors = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    for sentence in notes:
        errors.print(f"note: {sentence}", style="yellow")
    for sentence in failed:
        errors.print(f"failed: {sentence}", style="red")
    done = []
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, disable=not errors.is_terminal, transient=True) as progress:
        bar = progress.add_task("", total=total)
        for outcome in outcomes:
            done.append(outcome)
            progress.advance(bar)
            _print_outcome(outcome, console, errors)
    counts = count(done)
    lost = counts.get("failed", 0) + len(failed)
    sums = [f"{counts[status]} {words}" for status, words in _WORDS.items() if status in counts]
    console.print(", ".join([*sums, *([f"{lost} failed"] if lost else [])]) or "nothing to do")
    return not failed and not any(outcome.is_problem for outcome in done)


_WORDS = {
    "restored": "restored",
    "unchanged": "left as they were",
    "no face": "without a face",
    "planned": "would be restored",
    "skipped": "there already",
}


def _print_outcome(outcome: Outcome, console: Any, errors: Any) -> None:
    if outcome.status == "failed":
        errors.print(f"failed: {outcome.message}", style="red")
    elif outcome.status == "no face":
        errors.print(f"no face: {outcome.message}", style="yellow")
    elif outcome.status == "unchanged":
        console.print(f"unchanged: {outcome.message}")
    elif outcome.status == "planned":
        told = f" ({outcome.message})" if outcome.message else ""
        console.print(f"{outcome.source} -> {outcome.output}: {_faces(outcome.faces)}{told}")
    elif outcome.status == "restored":
        told = f"{outcome.restored} of {_faces(outcome.faces)}, {outcome.seconds:.1f} s"
        console.print(f"{outcome.source} -> {outcome.output}: {told}")
    for note in outcome.notes:
        errors.print(f"  note: {note}")
    for warning in outcome.warnings:
        errors.print(f"  warning: {warning}", style="yellow")


def _faces(number: int) -> str:
    return f"{number} face" if number == 1 else f"{number} faces"
