"""What a training run tells while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(steps: int, enabled: bool) -> Iterator[Callable[[int, dict[str, float], float], None]]:
    """A bar of ``steps``, moved by each report (step, losses, samples a second); lines where there is no terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    count, text = TextColumn("{task.completed}/{task.total}"), TextColumn("{task.description}")
    with Progress(BarColumn(), count, TimeRemainingColumn(), text, disable=not enabled) as bars:
        task = bars.add_task("", total=steps)

        def report(step: int, losses: dict[str, float], rate: float) -> None:
            text = " ".join(f"{key} {value:.4f}" for key, value in losses.items())
            bars.update(task, completed=step, description=f"{text}  {rate:.1f}/s")
            if not bars.console.is_terminal:
                bars.console.print(f"step {step}: {text}  {rate:.1f} samples/s", highlight=False)

        yield report
