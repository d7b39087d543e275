"""The times visited, orders and marginals on a flow with a closed form, and guidance."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from prefrestore.errors import InvalidInputError
from prefrestore.models.texture import sampler


def test_times_are_the_papers() -> None:
    assert sampler.flow_times(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert sampler.flow_times(1) == [1.0, 0.0]
    with pytest.raises(InvalidInputError):
        sampler.flow_times(0)


@dataclass(frozen=True)
class GaussianFlow:
    """Data N(mean, std^2) and source N(m, s^2), independent: velocity and marginals in closed form."""

    m: float
    s: float
    mean = torch.tensor([0.7, -0.4, 1.5], dtype=torch.float64)
    std = torch.tensor([0.5, 0.2, 1.4], dtype=torch.float64)

    def marginal(self, t: float | Tensor) -> tuple[Tensor, Tensor]:
        return (1 - t) * self.mean + t * self.m, ((1 - t) ** 2 * self.std**2 + t**2 * self.s**2) ** 0.5

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        t = t.reshape(-1, 1).double()
        mean, std = self.marginal(t)
        # E[x_1 - x_0 | x_t]: the covariance of x_1 - x_0 with x_t over the variance of x_t.
        return self.m - self.mean + (t * self.s**2 - (1 - t) * self.std**2) / std**2 * (x - mean)

    def error(self, solver: str, steps: int) -> float:
        """The flow maps quantile to quantile: z deviations of the source to z deviations of the data."""
        z = torch.tensor([[1.0, -0.7, 0.3], [-2.0, 1.2, 0.9]], dtype=torch.float64)
        end = sampler.SOLVERS[solver](self.velocity, self.m + self.s * z, sampler.flow_times(steps))
        return float((end - self.mean - self.std * z).abs().max())


FLOWS = [GaussianFlow(m=0.0, s=1.0), GaussianFlow(m=0.9, s=0.3)]
"""The paper's source, and a posterior mean's."""


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("dpm", 2)])
def test_order_of_convergence_on_a_gaussian_flow(flow: GaussianFlow, solver: str, order: int) -> None:
    steps = [64, 128, 256, 512]
    slope = -np.polyfit(np.log(steps), np.log([flow.error(solver, n) for n in steps]), 1)[0]
    assert abs(slope - order) < 0.06, slope


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("steps", [2, 4, 8, 16])
def test_second_order_is_better_at_the_few_steps_of_practice(flow: GaussianFlow, steps: int) -> None:
    assert flow.error("dpm", steps) < flow.error("euler", steps)


def log_snr_solver(velocity: sampler.Velocity, x: Tensor, times: list[float]) -> Tensor:
    """DPM-Solver++ (2M) as published, algorithm 2 of arXiv 2211.01095, first order where the log-SNR is infinite."""

    def log_snr(t: float) -> float:
        return math.log((1 - t) / t)

    before: tuple[float, Tensor] | None = None
    for now, then in pairwise(times):
        clean = estimate = x - now * velocity(x, torch.full((len(x),), now))
        if before is not None and before[0] < 1 and then > 0:
            r = (log_snr(now) - log_snr(before[0])) / (log_snr(then) - log_snr(now))
            estimate = clean + (clean - before[1]) / (2 * r)
        before = now, clean
        x = then / now * x + (1 - then / now) * estimate
    return x


@pytest.mark.parametrize("flow", FLOWS)
def test_extrapolating_in_the_log_snr_would_lose_part_of_the_order_at_the_ends(
    flow: GaussianFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sampler.SOLVERS, "log-snr", log_snr_solver)
    errors = [flow.error("log-snr", n) for n in (64, 128, 256)]
    assert all(math.log2(a / b) < 1.85 for a, b in pairwise(errors)), errors
    assert flow.error("dpm", 256) < errors[-1] / 2


@pytest.mark.parametrize("solver", sampler.SOLVERS)
def test_a_straight_flow_needs_one_step(solver: str) -> None:
    x_0, x_1 = torch.tensor([[3.0]]), torch.tensor([[-1.0]])
    for steps in (1, 3):
        end = sampler.SOLVERS[solver](lambda x, t: x_1 - x_0, x_1, sampler.flow_times(steps))
        assert torch.allclose(end, x_0, atol=1e-6)


def test_the_first_multistep_step_is_eulers() -> None:
    flow, x = FLOWS[1], torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times = [1.0, 0.6]
    assert torch.allclose(sampler.dpm_solver(flow.velocity, x, times), sampler.euler(flow.velocity, x, times))


@pytest.mark.parametrize("solver", sampler.SOLVERS)
def test_the_callback_sees_every_step_and_may_change_the_latents(solver: str) -> None:
    seen = []

    def callback(index: int, t: float, x: Tensor) -> Tensor:
        seen.append((index, t))
        return x + 1

    end = sampler.SOLVERS[solver](lambda x, t: torch.zeros_like(x), torch.zeros(1, 1), sampler.flow_times(2), callback)
    assert seen == [(0, 0.5), (1, 0.0)] and end.item() == 2


def test_guidance_by_hand_and_without_a_second_pass_at_one() -> None:
    calls = []

    def unconditional(x: Tensor, t: Tensor) -> Tensor:
        calls.append(1)
        return torch.full_like(x, 1.0)

    x, t = torch.zeros(1, 1), torch.ones(1)
    conditional = lambda x, t: torch.full_like(x, 3.0)  # noqa: E731
    assert sampler.guided(conditional, unconditional, 1.0)(x, t).item() == 3.0
    assert not calls
    assert sampler.guided(conditional, unconditional, 2.0)(x, t).item() == 5.0


STEP = {"start": 0.9, "noise_scale": 0.3, "eta": 0.7}


@pytest.mark.parametrize("flow", FLOWS)
def test_the_sde_keeps_the_marginals_of_the_flow(flow: GaussianFlow) -> None:
    generator = torch.Generator().manual_seed(0)
    count, steps, eta = 8_000, 200, 0.7
    x = flow.m + flow.s * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    times = sampler.flow_times(steps)
    path = sampler.sde(flow.velocity, x, times, generator, start=flow.m, noise_scale=flow.s, eta=eta)
    assert path.states.shape == (steps + 1, count, 3) and path.log_probs.shape == (steps - 1, count)
    # Sampling errors of a mean and of a standard deviation are 1.1 % and 0.8 % here; the bounds are four of them.
    for index in (steps // 2, 3 * steps // 4, steps):
        mean, std = flow.marginal(times[index])
        states = path.states[index]
        assert ((states.mean(0) - mean).abs() / std).max() < 0.045
        assert (states.std(0) / std - 1).abs().max() < 0.032
    # It is not the ODE in disguise, which would keep every sample at its quantile.
    assert torch.corrcoef(path.states[[0, -1], :, 0])[0, 1] < 0.5
    # The singular first step is as wrong as the docstring says, and no more.
    _, std = flow.marginal(times[1])
    assert (path.states[1].std(0) / std / math.sqrt(1 + eta**4 / 4) - 1).abs().max() < 0.025


def test_the_same_seed_gives_the_same_bytes() -> None:
    flow, x = FLOWS[1], torch.ones(2, 3, dtype=torch.float64)

    def sample(*seeds: int) -> sampler.Trajectory:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        generator = generators if len(seeds) > 1 else generators[0]
        torch.rand(1)  # the global state moves on and must not matter
        return sampler.sde(flow.velocity, x, sampler.flow_times(4), generator, **STEP)

    one, again, other = sample(7), sample(7), sample(8)
    assert torch.equal(one.states, again.states) and torch.equal(one.log_probs, again.log_probs)
    assert not torch.equal(one.states[1], other.states[1])
    # The last step, from t = 1/4, is the ODE's: nothing random, straight to the clean estimate.
    last = one.states[-2]
    assert torch.allclose(one.states[-1], last - 0.25 * flow.velocity(last, torch.full((2,), 0.25)), rtol=1e-12)
    # With a generator a sample, neither the rest of the batch nor the place in it matters.
    assert torch.equal(sample(7, 8).states[:, 0], sample(8, 7).states[:, 1])


def test_a_step_taken_again_has_the_same_log_probability_and_a_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(2, 4, 3, 3, generator=generator) for _ in range(2))
    velocity = torch.randn(2, 4, 3, 3, generator=generator, requires_grad=True)
    t, t_next = torch.tensor([1.0, 0.5]), torch.tensor([0.5, 0.25])
    x_next, log_prob = sampler.sde_step(x, velocity, t, t_next, noise=noise, **STEP)
    again = sampler.gaussian_log_prob(x_next, *sampler.sde_moments(x, velocity, t, t_next, **STEP))
    assert torch.equal(log_prob, again) and not x_next.requires_grad
    (gradient,) = torch.autograd.grad(log_prob.sum(), velocity)
    # d log p / d v = (x' - mean) / std^2 * d mean / d v; at t = 1 the mean moves by dt alone.
    _, std = sampler.sde_moments(x, velocity, t, t_next, **STEP)
    assert torch.allclose(gradient[0], noise[0] / std[0] * -0.5 / velocity[0].numel(), rtol=1e-4)


def test_what_has_no_log_probability_is_refused() -> None:
    x, t, t_next = torch.zeros(1, 2), torch.ones(1), torch.zeros(1)
    for changed in ({"noise_scale": 0.0}, {"eta": 0.0}):
        with pytest.raises(InvalidInputError, match="needs noise"):
            sampler.sde_moments(x, x, t, t_next, **STEP | changed)
    with pytest.raises(InvalidInputError, match="either a generator or the noise"):
        sampler.sde_step(x, x, t, t_next, **STEP)
    with pytest.raises(InvalidInputError, match="at least two steps"):
        sampler.sde(lambda x, t: x, x, [1.0, 0.0], torch.Generator(), **STEP)
