"""The ablations of Pref-Restore (arXiv 2601.19506) as variants of one pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from prefrestore.errors import InvalidInputError
from prefrestore.evaluation.systems import Variant

SHIPPED = "as shipped"
PARTS = ("semantic", "preference", "adapters", "fidelity", "steps", "guidance", "solver")
STEPS = (1, 2, 4, 8, 30)
GUIDANCE = (1.0, 2.0)
FIDELITY = (0.0, 0.5, 1.0)
SOLVERS = ("euler", "dpm")
# The solvers differ only where there is more than one step.
SOLVER_STEPS = 4


def variants(base: Variant, adapters: Iterable[str], parts: Iterable[str] = PARTS) -> list[Variant]:
    """The rows of the table: `base` first, then one change to it in each.

    Args:
        base: how the pipeline is run otherwise.
        adapters: names of loaded preference adapters, each against `base`.
        parts: which groups of rows, of `PARTS`.

    Raises:
        InvalidInputError: an unknown part.
    """
    asked, adapters = list(parts), list(adapters)
    for part in asked:
        if part not in PARTS:
            raise InvalidInputError(f"there is no ablation '{part}'; there are {', '.join(PARTS)}")
    groups: Mapping[str, list[Variant]] = {
        "semantic": [replace(base, title="without the semantic branch", semantic=False)],
        "preference": [replace(base, title="without preference", adapter="")],
        "adapters": [replace(base, title=f"adapter {name}", adapter=name) for name in adapters],
        "fidelity": [replace(base, title=f"fidelity {value:g}", fidelity=value) for value in FIDELITY],
        "steps": [replace(base, title=f"{count} steps", steps=count) for count in STEPS],
        "guidance": [replace(base, title=f"guidance {value:g}", guidance_scale=value) for value in GUIDANCE],
        "solver": [
            replace(base, title=f"{name}, {SOLVER_STEPS} steps", solver=name, steps=SOLVER_STEPS) for name in SOLVERS
        ],
    }
    return [base, *(variant for part in PARTS if part in asked for variant in groups[part])]
