"""The documented commands are the real ones."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefrestore.cli.train import STAGES

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    "docs/usage.md",
    "docs/serve.md",
    "docs/cluster.md",
    "docs/installation.md",
    "docs/training.md",
    "docs/gpu-bundle.md",
    "docs/model-card.md",
    "docs/benchmarks.md",
    "docs/notes/quality.md",
    "docs/architecture.md",
    "docs/notes/lq-encoder.md",
    "docs/notes/preference.md",
    "docs/paper-scale.md",
    "docs/evaluation.md",
]


def commands(text: str) -> list[str]:
    """The lines of console blocks that start with our program."""
    return re.findall(r"^\$ (prefrestore .*?)(?:\s+#.*)?$", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_every_documented_command_and_option_exists(prefrestore: Callable[..., Any], page: str) -> None:
    for command in commands((ROOT / page).read_text()):
        words = command.split()[1:]
        names = words[:2] if words[0] == "train" and words[1] in STAGES else words[:1]
        ran = prefrestore([*names, "--help"])
        assert ran.code == 0, command
        options = set(re.findall(r"--[a-z][a-z-]*", command)) - {"--help"}
        assert not {option for option in options if option not in ran.text}, command


def test_the_table_of_options_is_the_help_s(prefrestore: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # Long names are cut on a narrow terminal.
    monkeypatch.setenv("COLUMNS", "200")
    table = re.findall(r"^\| (`--.*?) \|", (ROOT / "docs/usage.md").read_text(), re.MULTILINE)
    documented = {option for cell in table for option in re.findall(r"--[a-z-]+", cell)}
    real = set(re.findall(r"(--[a-z][a-z-]*)", prefrestore(["restore", "--help"]).text))
    assert documented == real - {"--output", "--help"}


def test_every_documented_benchmark_exists() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.py"), ROOT / "README.md"]
    name = re.compile(r"benchmarks/(\w+\.py)(?: ([a-z][a-z-]*))?")
    named = {each for page in pages for each in name.findall(page.read_text())}
    assert len(named) > 10
    for script, part in named:
        source = (ROOT / "benchmarks" / script).read_text()
        assert f"{script} {part}" in source, f"{script} {part}"  # its own usage lines name each part


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_project_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target
