"""The house: what may import what, and what may lie at its root. See docs/architecture.md."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src"
FLOORS = """
    errors files pictures faces metrics models pipeline degrade data restoration engines training preference evaluation
    serve cli
""".split()
"""From the ground up: a module imports from its own floor and from those below it."""
LONGEST = 300
"""Lines of a module."""


def modules(src: Path) -> dict[str, Path]:
    """Name below the package -> file; a package stands for its ``__init__``, the root for the empty name."""
    found = {}
    for path in sorted((src / "prefrestore").rglob("*.py")):
        parts = path.relative_to(src / "prefrestore").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.Module) -> Iterator[str]:
    """Dotted names that a module imports, lazily or not, without those for type checkers alone."""
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write imports in full"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def arrows(src: Path) -> dict[str, set[str]]:
    """Module -> the modules that it imports; the root, which holds the version and the public names, is left out."""
    files = modules(src)
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        graph[name] = set()
        for dotted in imported(ast.parse(path.read_text())):
            if dotted.split(".")[0] != "prefrestore":
                continue
            inside = dotted.removeprefix("prefrestore.")
            target = inside if inside in files else inside.rpartition(".")[0]
            if target and target != name:
                graph[name].add(target)
    return graph


def circles(graph: dict[str, set[str]]) -> list[str]:
    """One sentence for each arrow that closes a circle."""
    done: set[str] = set()
    found = []

    def visit(node: str, way: list[str]) -> None:
        for target in sorted(graph.get(node, ())):
            if target in way:
                found.append(" -> ".join([*way[way.index(target) :], target]))
            elif target not in done:
                visit(target, [*way, target])
        done.add(node)

    for node in sorted(graph):
        if node not in done:
            visit(node, [node])
    return found


def faults(src: Path) -> list[str]:
    """Everything that the house forbids, a sentence each."""
    graph = arrows(src)
    told = [f"a circle: {circle}" for circle in circles(graph)]
    for name, targets in graph.items():
        for target in sorted(targets):
            above, below = (part.split(".")[0] for part in (name, target))
            if name and FLOORS.index(below) > FLOORS.index(above):
                told.append(f"{name} imports {target}, which lies above it")
    for name, path in modules(src).items():
        if (lines := len(path.read_text().splitlines())) > LONGEST:
            told.append(f"{name} has {lines} lines")
    at_root = {path.name for path in (src / "prefrestore").iterdir() if path.is_file()}
    told += [f"{name} lies at the root" for name in sorted(at_root - {"__init__.py", "errors.py", "py.typed"})]
    return told


def test_the_rooms_that_the_documentation_names_are_there() -> None:
    text = (SRC.parent / "docs" / "architecture.md").read_text()
    rooms = "|".join(FLOORS)
    named = set(re.findall(rf"`((?:{rooms})/[\w/]*(?:\.py)?)`", text))
    assert {"restoration/photo", "training/loop", "preference/policy"} <= named
    inside = SRC / "prefrestore"
    missing = {name for name in named if not ((inside / name).exists() or (inside / f"{name}.py").is_file())}
    assert missing == set()
    untold = [room for room in FLOORS if not re.search(rf"^\| `{room}(?:/|\.py)` \|", text, re.MULTILINE)]
    assert untold == []


def test_the_house_stands() -> None:
    assert faults(SRC) == []


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (
            {"faces/a.py": "from prefrestore.cli import b", "cli/b.py": ""},
            ["faces.a imports cli.b, which lies above it"],
        ),
        (
            {"faces/a.py": "def f():\n import prefrestore.faces.b", "faces/b.py": "from prefrestore.faces import a"},
            ["a circle: faces.a -> faces.b -> faces.a"],
        ),
        ({"faces/a.py": "\n" * 301}, ["faces.a has 301 lines"]),
        ({"plan.json": ""}, ["plan.json lies at the root"]),
        ({"faces/a.py": "if TYPE_CHECKING:\n    from prefrestore.cli import b", "cli/b.py": ""}, []),
    ],
)
def test_what_it_forbids(tmp_path: Path, files: dict[str, str], told: list[str]) -> None:
    for name, text in {"__init__.py": "", **files}.items():
        path = tmp_path / "prefrestore" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert faults(tmp_path) == told
