"""Options of a training stage are the fields of its Config."""

from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Literal

import pytest
import typer
from typer.testing import CliRunner

from prefrestore.cli import app
from prefrestore.cli.train import STAGES, argument_helps, command_of


@dataclass(frozen=True, kw_only=True)
class Config:
    """A stage.

    Args:
        data: folders
            of faces.
        steps, size: how many, and how large.
    """

    data: tuple[Path, ...]
    steps: int = 7
    size: int = 4
    rate: float | None = None
    betas: tuple[float, float] = (0.9, 0.99)
    extra: tuple[str, ...] = ()
    resume: bool = True
    kind: Literal["a", "b"] = "a"


def parsed(*arguments: str) -> Config:
    seen: list[Config] = []
    parser = typer.Typer()
    parser.command()(command_of(Config, seen.append))
    result = CliRunner().invoke(parser, list(arguments))
    assert result.exit_code == 0, result.output
    return seen[0]


def test_defaults_are_the_dataclass_own() -> None:
    assert parsed("--data", "x") == Config(data=(Path("x"),))


def test_every_field_can_be_set() -> None:
    got = parsed(
        *(
            "--data",
            "x",
            "--data",
            "y",
            "--steps",
            "3",
            "--size",
            "9",
            "--rate",
            "0.5",
            "--betas",
            "0.1",
            "0.2",
        ),
        *("--extra", "p", "--extra", "q", "--no-resume", "--kind", "b"),
    )
    assert got == Config(
        data=(Path("x"), Path("y")),
        steps=3,
        size=9,
        rate=0.5,
        betas=(0.1, 0.2),
        extra=("p", "q"),
        resume=False,
        kind="b",
    )


def test_helps_come_from_the_docstring() -> None:
    helps = argument_helps(Config.__doc__ or "")
    assert helps == {
        "data": "folders of faces.",
        "steps": "how many, and how large.",
        "size": "how many, and how large.",
    }


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_lists_every_field_of_its_config(stage: str) -> None:
    module = import_module(f"prefrestore.{STAGES[stage][0]}")
    result = CliRunner().invoke(app, ["train", stage, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    for field in fields(module.Config):
        assert f"--{field.name.replace('_', '-')}" in result.output


def test_a_missing_option_is_a_usage_error() -> None:
    result = CliRunner().invoke(app, ["train", "encoder", "--steps", "3"])
    assert result.exit_code == 2
    assert "--data" in result.output
