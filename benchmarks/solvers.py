"""How many steps does a solver need? Each against the exact end of flows whose velocity is known in closed form.

    python benchmarks/solvers.py

The data are mixtures of Gaussians, as a posterior over faces is one of separate guesses; the source is N(0, I). Errors
are the root of the mean square, per number, against 2,000 second-order steps; docs/paper-scale.md has the figures.
"""

import argparse
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from prefrestore.models.texture.sampler import dpm_solver, euler, flow_times

STARTS = 400
STDS, SHAPES = (0.05, 0.1, 0.3, 0.5), ((2, 8), (32, 8), (32, 64))  # of a component; (dimensions, components)


def mixture_velocity(means: Tensor, std: float) -> Callable[[Tensor, Tensor], Tensor]:
    """``E[x_1 - x_0 | x_t]`` of the flow from N(0, I) to equal parts of ``N(means_k, std^2 I)``, means (K,D)."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        point, time = x.flatten(1), t.double()[:, None]
        variance = (1 - time) ** 2 * std**2 + time**2
        away = point[:, None] - (1 - time)[..., None] * means
        weight = torch.softmax(-away.square().sum(-1) / (2 * variance), 1)
        shrink = (1 - time) * std**2 / variance
        clean = (weight[..., None] * (means + shrink[..., None] * away)).sum(1)
        return ((point - clean) / time).view_as(x)

    return velocity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--euler", type=int, default=30, help="steps of the first-order solver")
    parser.add_argument("--dpm", type=int, nargs="+", default=[6, 8, 10, 12, 15])
    options = parser.parse_args()
    table = Table(title="root mean square error")
    for column in ("std", "numbers", "parts", f"Euler {options.euler}", *(f"dpm {n}" for n in options.dpm)):
        table.add_column(column, justify="right")
    generator = torch.Generator().manual_seed(0)
    for std in STDS:
        for dimensions, components in SHAPES:
            means = torch.randn(components, dimensions, generator=generator, dtype=torch.float64)
            velocity = mixture_velocity(means, std)
            x = torch.randn(STARTS, dimensions, 1, 1, generator=generator, dtype=torch.float64)
            exact = dpm_solver(velocity, x, flow_times(2000))
            ends = [euler(velocity, x, flow_times(options.euler))]
            ends += [dpm_solver(velocity, x, flow_times(steps)) for steps in options.dpm]
            errors = [(end - exact).square().mean().sqrt().item() for end in ends]
            table.add_row(f"{std}", f"{dimensions}", f"{components}", *(f"{error:.3f}" for error in errors))
    Console().print(table)


if __name__ == "__main__":
    main()
