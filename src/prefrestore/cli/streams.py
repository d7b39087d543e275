"""``-``: a photo from standard input, a result to standard output. Both lie in a folder of their own meanwhile."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prefrestore.errors import ImageReadError, InvalidInputError

if TYPE_CHECKING:
    from prefrestore.restoration.batch import Outcome
    from prefrestore.restoration.plan import Task

STREAM = "-"


@dataclass(frozen=True)
class Streams:
    """inputs, output: as the user named them, with files in place of streams. folder: theirs, None without streams."""

    inputs: Sequence[str]
    output: Path
    folder: Path | None = None
    to_stdout: bool = False

    @property
    def folder_of_output(self) -> Path:
        """Where a run's own file, the manifest, lies."""
        return self.output.parent if self.output.suffix and not self.output.is_dir() else self.output

    def named(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """The outcomes with the streams' own names."""
        for outcome in outcomes:
            if self.folder is None:
                yield outcome
                continue
            yield replace(
                outcome,
                source=self._named(outcome.source),
                output=outcome.output and (Path("standard output") if self.to_stdout else self._named(outcome.output)),
                message=outcome.message.replace(f"{self.folder}/", ""),
            )

    def _named(self, path: Path) -> Path:
        return path.relative_to(self.folder) if self.folder and path.is_relative_to(self.folder) else path

    def check(self, tasks: Sequence[Task], *, beside: bool) -> None:
        """Raises InvalidInputError if standard output would have to take several files."""
        if self.to_stdout and (len(tasks) != 1 or beside):
            what = "nothing beside it" if beside else f"not {len(tasks)}"
            raise InvalidInputError(f"standard output takes one picture, {what}")

    def send(self, tasks: Sequence[Task]) -> None:
        """Give the result to standard output, if it was made."""
        if self.to_stdout:
            for task in tasks:
                if task.output.exists():
                    with task.output.open("rb") as file:
                        shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.flush()


@contextmanager
def streams(inputs: Sequence[str], output: Path) -> Iterator[Streams]:
    """Standard input, if it is among the inputs, as a file; a folder in place of standard output."""
    if STREAM not in inputs and str(output) != STREAM:
        yield Streams(inputs, output)
        return
    with tempfile.TemporaryDirectory(prefix="prefrestore-") as name:
        folder = Path(name)
        if STREAM in inputs:
            arrived = _arrived(folder / "stdin")
            inputs = [str(arrived) if named == STREAM else named for named in inputs]
        to_stdout = str(output) == STREAM
        yield Streams(inputs, folder / "out" if to_stdout else output, folder, to_stdout)


def _arrived(path: Path) -> Path:
    """Standard input as a file with the ending of its format, which decides the output's."""
    from prefrestore.pictures.formats import FORMATS
    from prefrestore.pictures.read import read_header

    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    endings = {"HEIF": ".heic"} | {kind: ending for ending, kind in reversed(FORMATS.items())}
    try:
        ending = endings.get(read_header(path).format, "")
    except ImageReadError:
        # Whoever reads it says what is wrong with it.
        return path
    return path.rename(path.with_suffix(ending))
