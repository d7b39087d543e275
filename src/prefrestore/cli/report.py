"""What a run says on the terminal: each photo as it is finished, and the sums."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from prefrestore.restoration.batch import Outcome


class _Voice:
    """Prints sentences as they are: no markup, no colours guessed, no folding. What cannot be printed stops nothing."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self.console = Console(file=stream, markup=False, highlight=False, soft_wrap=True)
        self.error: OSError | None = None

    def say(self, text: str, style: str | None = None) -> None:
        if self.error is None:
            try:
                self.console.print(_printable(text, self.console.encoding), style=style)
                self.console.file.flush()
            except OSError as error:
                self.error = error


def report(
    outcomes: Iterable[Outcome],
    total: int,
    failed: Sequence[str],
    notes: Sequence[str] = (),
    *,
    to_stderr: bool = False,
) -> bool:
    """Print each outcome as it comes and the sums at the end; returns whether all went well.

    Args:
        total: how many outcomes there will be.
        failed: sentences about inputs that led to no picture at all.
        notes: sentences about pictures that were left out.
        to_stderr: leave standard output alone.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from prefrestore.restoration.batch import count

    errors = _Voice(sys.stderr)
    out = errors if to_stderr else _Voice(sys.stdout)
    for sentence in notes:
        errors.say(f"note: {sentence}", "yellow")
    for sentence in failed:
        errors.say(f"failed: {sentence}", "red")
    done = []
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    terminal = errors.console.is_terminal
    with Progress(*columns, console=errors.console, disable=not terminal, transient=True) as progress:
        bar = progress.add_task("", total=total)
        for outcome in outcomes:
            done.append(outcome)
            progress.advance(bar)
            _print_outcome(outcome, out, errors)
    counts = count(done)
    lost = counts.get("failed", 0) + len(failed)
    sums = [f"{counts[status]} {words}" for status, words in _WORDS.items() if status in counts]
    out.say(", ".join([*sums, *([f"{lost} failed"] if lost else [])]) or "nothing to do")
    if out.error is not None:
        errors.say(f"failed: standard output cannot be written: {out.error.strerror or out.error}", "red")
        forget_stdout()
    return not failed and out.error is None and not any(outcome.is_problem for outcome in done)


def forget_stdout() -> None:
    """Lead standard output nowhere: at its end Python would try once more to write what is left, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def escape_unprintable() -> None:
    """Let standard output and error print letters that they do not have as escapes, in place of an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _printable(text: str, encoding: str) -> str:
    return text.encode(encoding, "backslashreplace").decode(encoding)


_WORDS = {
    "restored": "restored",
    "unchanged": "left as they were",
    "no face": "without a face",
    "planned": "would be restored",
    "skipped": "there already",
}


def _print_outcome(outcome: Outcome, console: _Voice, errors: _Voice) -> None:
    if outcome.status == "failed":
        errors.say(f"failed: {outcome.message}", "red")
    elif outcome.status == "no face":
        errors.say(f"no face: {outcome.message}", "yellow")
    elif outcome.status == "unchanged":
        console.say(f"unchanged: {outcome.message}")
    elif outcome.status == "planned":
        told = f" ({outcome.message})" if outcome.message else ""
        console.say(f"{outcome.source} -> {outcome.output}: {_faces(outcome.faces)}{told}")
    elif outcome.status == "restored":
        told = f"{outcome.restored} of {_faces(outcome.faces)}, {outcome.seconds:.1f} s"
        console.say(f"{outcome.source} -> {outcome.output}: {told}")
    for note in outcome.notes:
        errors.say(f"  note: {note}")
    for warning in outcome.warnings:
        errors.say(f"  warning: {warning}", "yellow")


def _faces(number: int) -> str:
    return f"{number} face" if number == 1 else f"{number} faces"
