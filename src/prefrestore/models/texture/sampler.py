"""Solvers of the flow ODE, and the SDE with the same marginals: pure functions of a velocity, which know no model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from prefrestore.errors import InvalidInputError
from prefrestore.models.texture.flow import expand_time

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x (B,C,h,w), t (B,)) -> velocity (B,C,h,w)."""

Callback = Callable[[int, float, Tensor], Tensor]
"""(step index, the time reached, latents) -> latents to go on with."""

Generators = torch.Generator | Sequence[torch.Generator]
"""One source of noise for the batch, or one a sample, which makes a sample independent of its batch."""


def flow_times(steps: int) -> list[float]:
    """``linspace(1, 1/N, N)`` and then 0 (METHOD: unshifted), N + 1 numbers.

    Raises:
        InvalidInputError: fewer than one step.
    """
    if steps < 1:
        raise InvalidInputError(f"the flow needs at least one step, not {steps}")
    return [1 - i / steps for i in range(steps)] + [0.0]


def euler(velocity: Velocity, x: Tensor, times: list[float], callback: Callback | None = None) -> Tensor:
    """First-order: ``x <- x + (t' - t) v(x, t)`` along ``times``, from t = 1 down to 0."""
    for index, (now, then) in enumerate(pairwise(times)):
        x = x + (then - now) * velocity(x, _batch_time(now, x)).to(x.dtype)
        if callback is not None:
            x = callback(index, then, x)
    return x


def dpm_solver(velocity: Velocity, x: Tensor, times: list[float], callback: Callback | None = None) -> Tensor:
    """DPM-Solver++ (2M) in flow form: second order for one velocity a step (arXiv 2211.01095, algorithm 2).

    In flow form alpha = 1 - t and sigma = t; with the data prediction ``D = x - t v`` the paper's step is
    ``x' = (t'/t) x + (1 - t'/t) D``, which is also right for a source ``m + s e``, since ``dD/dt = -t dv/dt`` whatever
    the source. The second order comes from extrapolating D along the last step. The paper does so in the log-SNR,
    ``log((1-t)/t)``, which is infinite at both ends of a flow: there it falls back to first order, and over [1, 0] the
    error shrinks like ``log(N)/N^2``. By the same equation D is smooth in ``t^2``, so it is extrapolated in that:

        ``D <- D_i + (D_i - D_{i-1}) * t (t - t') / (t_{i-1}^2 - t^2)``

    It is finite at t = 1 and at t' = 0, and exact to second order up to the end. The first step is Euler's; being only
    one, it costs no order. So is the step after a callback that gave other latents: nothing is extrapolated over them.
    """
    before: tuple[float, Tensor] | None = None
    for index, (now, then) in enumerate(pairwise(times)):
        clean = x - now * velocity(x, _batch_time(now, x)).to(x.dtype)
        estimate = clean
        if before is not None:
            t_before, clean_before = before
            estimate = clean + now * (now - then) / (t_before**2 - now**2) * (clean - clean_before)
        before = now, clean
        x = torch.lerp(estimate, x, then / now)
        if callback is not None:
            ours, x = x, callback(index, then, x)
            if x is not ours:
                before = None
    return x


def guided(velocity: Velocity, unconditional: Velocity, guidance_scale: float) -> Velocity:
    """Classifier-free guidance ``u + s (v - u)``; at scale 1 the second pass is not made."""
    if guidance_scale == 1.0:
        return velocity

    def guided_velocity(x: Tensor, t: Tensor) -> Tensor:
        without = unconditional(x, t)
        return without + guidance_scale * (velocity(x, t) - without)

    return guided_velocity


SOLVERS = {"euler": euler, "dpm": dpm_solver}


def sde_moments(
    x: Tensor, velocity: Tensor, t: Tensor, t_next: Tensor, *, start: Tensor | float, noise_scale: float, eta: float
) -> tuple[Tensor, Tensor]:
    """The Gaussian that one step of Flow-GRPO's SDE draws from (arXiv 2505.05470, eq. 9), for a source ``m + s e``.

    Any diffusion g leaves the flow's marginals as they are if the drift takes back ``g^2/2`` times their score. As
    ``x + (1-t) v`` is the expected source, the score is ``-(x + (1-t) v - m) / (t s^2)``. With Flow-GRPO's choice,
    ``g = s eta sqrt(t/(1-t))``, s cancels from the drift:

        ``mean = x + dt (v + eta^2 / (2 (1-t)) (x + (1-t) v - m))``,  ``std = g sqrt(-dt)``,  ``dt = t' - t < 0``

    which for m = 0 and s = 1 is Flow-GRPO's own step. At t = 1 it is singular; there, as in the reference
    implementation, ``1 - t'`` stands in for ``1 - t``. This first step then leaves a variance too large by the factor
    ``1 + eta^4/4`` around m, however small the step; later steps take most of it back.

    Args:
        x, velocity: state and velocity there, (B,C,h,w); x in float32 or better.
        t, t_next: times (B,), 0 <= t_next < t <= 1.
        start: m, the source's mean, (B,C,h,w), or 0.
        noise_scale: s.
        eta: how much noise; 0.7 in the paper.

    Returns:
        Mean (B,C,h,w) and standard deviation (B,1,1,1).

    Raises:
        InvalidInputError: ``noise_scale`` or ``eta`` is not positive: without noise there is no density.
    """
    if noise_scale <= 0 or eta <= 0:
        raise InvalidInputError(f"an SDE step needs noise: noise scale {noise_scale} and eta {eta} must be positive")
    velocity = velocity.to(x.dtype)
    away = expand_time(torch.where(t == 1, 1 - t_next, 1 - t), x)
    t, t_next = expand_time(t, x), expand_time(t_next, x)
    dt = t_next - t
    mean = x + dt * (velocity + eta**2 / (2 * away) * (x + (1 - t) * velocity - start))
    return mean, noise_scale * eta * (t / away * -dt).sqrt()


def gaussian_log_prob(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log-density of x (B,C,h,w) under ``N(mean, std^2 I)``, in nats *per dimension*: (B,).

    The mean over a sample's dimensions, not their sum, as in Flow-GRPO: ratios stay near 1 whatever the latent's size,
    and clip ranges mean the same for all sizes.
    """
    log_density = -((x - mean) ** 2) / (2 * std**2) - std.log() - math.log(2 * math.pi) / 2
    return log_density.flatten(1).mean(1)


def sde_step(
    x: Tensor,
    velocity: Tensor,
    t: Tensor,
    t_next: Tensor,
    *,
    start: Tensor | float,
    noise_scale: float,
    eta: float,
    generator: Generators | None = None,
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw the next state from `sde_moments` -> (x_next (B,C,h,w), its log-probability (B,), see `gaussian_log_prob`).

    Args:
        generator, noise: where the step's standard normal noise comes from, or the noise (B,C,h,w): one of the two.

    Raises:
        InvalidInputError: both or neither of generator and noise; no noise to add, see `sde_moments`.
    """
    if noise is None and generator is not None:
        noise = _standard_normal(x, generator)
    elif noise is None or generator is not None:
        raise InvalidInputError("an SDE step takes either a generator or the noise itself")
    mean, std = sde_moments(x, velocity, t, t_next, start=start, noise_scale=noise_scale, eta=eta)
    # The state is data: a gradient of its log-probability goes through mean and std alone.
    x_next = (mean + std * noise).detach()
    return x_next, gaussian_log_prob(x_next, mean, std)


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """What a policy gradient needs of a restoration.

    times: N+1 of them, falling to 0. states: (N+1,B,C,h,w), the source first and the clean latents last. log_probs:
    (N-1,B), entry i that of ``states[i + 1]`` given ``states[i]``; the last step is deterministic and has none.
    """

    times: list[float]
    states: Tensor
    log_probs: Tensor


def sde(
    velocity: Velocity,
    x: Tensor,
    times: list[float],
    generator: Generators,
    *,
    start: Tensor | float,
    noise_scale: float,
    eta: float,
) -> Trajectory:
    """Sample by SDE steps (`sde_step`) from the source x along ``times``, which end at 0.

    The last step is the ODE's: noise that nothing takes away again would be seen in the picture. So it is no part of
    the policy, as in Flow-GRPO's published configurations, which train on all steps but the last.

    Raises:
        InvalidInputError: fewer than two steps, which leaves none with noise.
    """
    if len(times) < 3:
        raise InvalidInputError(f"sampling with log-probabilities needs at least two steps, not {len(times) - 1}")
    states, log_probs = [x], []
    for now, then in pairwise(times[:-1]):
        t, t_next = _batch_time(now, x), _batch_time(then, x)
        x, log_prob = sde_step(
            x, velocity(x, t), t, t_next, start=start, noise_scale=noise_scale, eta=eta, generator=generator
        )
        states.append(x)
        log_probs.append(log_prob)
    states.append(euler(velocity, x, times[-2:]))
    return Trajectory(times=times, states=torch.stack(states), log_probs=torch.stack(log_probs))


def _batch_time(t: float, x: Tensor) -> Tensor:
    return torch.full((len(x),), t, device=x.device, dtype=torch.float32)


def _standard_normal(like: Tensor, generator: Generators) -> Tensor:
    """Noise shaped like a batch; drawn where the generator lives, so that a CPU seed means the same on any device."""
    sources = generator if isinstance(generator, torch.Generator) else list(generator)
    return randn_tensor(tuple(like.shape), sources, device=like.device, dtype=like.dtype)
