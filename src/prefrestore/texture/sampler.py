"""Solvers of the flow ODE: pure functions of a velocity function, which know no model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prefrestore.errors import InvalidInputError

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x (B,C,h,w), t (B,)) -> velocity (B,C,h,w)."""

Callback = Callable[[int, float, Tensor], Tensor]
"""(step index, the time reached, latents) -> latents to go on with."""


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
    for index, (now, then) in enumerate(zip(times[:-1], times[1:], strict=True)):
        t = torch.full((len(x),), now, device=x.device, dtype=torch.float32)
        x = x + (then - now) * velocity(x, t).to(x.dtype)
        if callback is not None:
            x = callback(index, then, x)
    return x


def guided(velocity: Velocity, unconditional: Velocity, guidance_scale: float) -> Velocity:
    """Classifier-free guidance ``u + s (v - u)``; at scale 1 the second pass is not made."""
    if guidance_scale == 1.0:
        return velocity

    def guided_velocity(x: Tensor, t: Tensor) -> Tensor:
        without = unconditional(x, t)
        return without + guidance_scale * (velocity(x, t) - without)

    return guided_velocity


SOLVERS = {"euler": euler}
