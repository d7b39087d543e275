"""The command line: parse, call, print. Every heavy import is inside the command that needs it."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

import typer

from prefrestore.cli import ablate, convert, degrade, evaluate, info, preference, restore, serve, train
from prefrestore.cli.choices import Strict
from prefrestore.cli.interrupt import INTERRUPTED, told_interrupts
from prefrestore.cli.report import escape_unprintable, forget_stdout
from prefrestore.errors import PrefRestoreError

app = typer.Typer(
    name="prefrestore",
    help="Restore the faces in photos, and train the models that do it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from prefrestore import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command("restore", cls=Strict, no_args_is_help=True)(restore.restore)
app.command("degrade", no_args_is_help=True)(degrade.degrade)
app.add_typer(train.app, name="train")
app.add_typer(preference.app, name="preference")
app.command("evaluate", no_args_is_help=True)(evaluate.evaluate)
app.command("ablate", no_args_is_help=True)(ablate.ablate)
app.command("convert", no_args_is_help=True)(convert.convert)
app.command("serve")(serve.serve)
app.command("info")(info.info)


def main() -> None:
    """The console script: an error raised on purpose is printed as one sentence, and the exit status is 1."""
    escape_unprintable()
    # Of damaged files, and with lines of its code: what is wrong with a file is told in a sentence.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        with told_interrupts():
            app()
    except PrefRestoreError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone.
        forget_stdout()
        sys.exit(1)


__all__ = ["app", "main"]
