"""``prefrestore train STAGE``: the options of a stage are the fields of its ``Config``, so there is one list
of them.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from functools import partial
from importlib import import_module
from types import NoneType, UnionType
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Train one stage, or all of them in order. Each resumes where it stopped.",
    no_args_is_help=True,
)

# Name of the command: (module of prefrestore with a dataclass `Config` and a `run(config)`, what it
# is).
STAGES = {
    "autoencoder": ("training.autoencoder", "Images to latents and back."),
    "tokenizer": ("training.tokenizer", "Images to discrete tokens that carry meaning."),
    "semantic": ("training.semantic", "Step 1: the language model writes the clean image's tokens."),
    "encoder": ("training.encoder", "Step 2, first half: the latent of the clean image from the degraded one."),
    "fidelity": ("training.fidelity", "Step 2: the flow restores texture under both conditions."),
    "octave": ("training.octave", "From the core's faces to faces of twice the size."),
    "steering": ("training.steering", "What a caption tells of a face, acted on."),
    "one-stage": ("training.one_stage", "Steps 1 and 2 at once, from random weights, to compare with."),
    "preference": ("preference.trainer", "Step 3: human preference as a constraint, by on-policy RL."),
    "scorer": ("preference.scorer_trainer", "The preference scorer, on pairs of known order."),
    "average": ("training.average", "The mean of components that several runs made from the same ones."),
    "assemble": ("training.assemble", "Put the trained parts together: one pipeline folder with its hashes."),
    "all": ("training.everything", "Every stage in order, from folders of faces to a finished pipeline folder."),
}

# Everything after the stage's name, --help included, is for the stage's own parser: building that one imports
# torch, which `prefrestore --help` and `prefrestore train --help` must not wait for.
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def _register(stage: str) -> None:
    def command(ctx: typer.Context) -> None:
        run_stage(stage, ctx.args)

    app.command(stage, help=STAGES[stage][1], context_settings=_PASS_ON)(command)


for _stage in STAGES:
    _register(_stage)


def run_stage(stage: str, arguments: list[str]) -> None:
    """Parse `arguments` by the stage's ``Config`` and call the stage's ``run`` with it."""
    from prefrestore.training.processes import ended_in_order, log_on_main

    name, sentence = STAGES[stage]
    module = import_module(f"prefrestore.{name}")
    parser = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    parser.command(help=sentence, context_settings={"help_option_names": ["-h", "--help"]})(
        command_of(module.Config, partial(module.run, log=log_on_main))
    )
    with ended_in_order():
        parser(arguments, prog_name=f"prefrestore train {stage}")


def command_of(config: type, run: Callable[[Any], object]) -> Callable[..., None]:
    """A function with one keyword parameter for each field of the dataclass `config`, for typer to make
    options of.

    A tuple of any length becomes an option that may be repeated; help texts come from the ``Args:`` section
    of the docstring. A field of another type than typer knows raises typer's own error when the command is
    built.
    """
    helps = argument_helps(config.__doc__ or "")
    hints = typing.get_type_hints(config)

    def command(**values: Any) -> None:
        run(config(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}))

    types = {field.name: _option_type(hints[field.name]) for field in fields(config)}
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(field, types[field.name]),
            annotation=Annotated[types[field.name], typer.Option(help=helps.get(field.name))],
        )
        for field in fields(config)
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def argument_helps(docstring: str) -> dict[str, str]:
    """Name -> text from the ``Args:`` section; ``a, b: text`` counts for both names."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)+)", inspect.cleandoc(docstring), re.MULTILINE)
    helps: dict[str, str] = {}
    for entry in re.split(r"\n(?=\w)", inspect.cleandoc("\n" + section[1]) if section else ""):
        names, _, text = entry.partition(":")
        for name in names.split(","):
            helps[name.strip()] = " ".join(text.replace("``", "").split())
    return helps


def _default(field: Field[Any], option_type: Any) -> Any:
    if field.default_factory is not MISSING:
        value = field.default_factory()
    elif field.default is not MISSING:
        value = field.default
    else:
        return inspect.Parameter.empty
    return list(value) if typing.get_origin(option_type) is list else value


def _option_type(hint: Any) -> Any:
    """tuple[X, ...] as list[X], also inside an optional; anything else as it is."""
    if typing.get_origin(hint) is tuple and typing.get_args(hint)[1:] == (...,):
        return list[typing.get_args(hint)[0]]  # type: ignore[misc]
    if typing.get_origin(hint) in (UnionType, typing.Union) and NoneType in typing.get_args(hint):
        inner = [_option_type(part) for part in typing.get_args(hint) if part is not NoneType]
        return inner[0] | None if len(inner) == 1 else hint
    return hint
