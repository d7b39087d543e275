"""The flow-matching path as pure functions (Lipman et al., arXiv 2210.02747; Pref-Restore, arXiv 2601.19506).

``x_t = (1 - t) x_0 + t x_1`` with the clean latent ``x_0`` at t = 0 and the source ``x_1`` at t = 1. The source is
noise (the paper), or a posterior-mean estimate with a little noise (PMRF, arXiv 2410.00418): one formula,
``x_1 = start + noise_scale * e``, with start 0 and noise_scale 1 for the former.
"""

from __future__ import annotations

from torch import Tensor


def expand_time(t: Tensor, like: Tensor) -> Tensor:
    """Times (B,) -> (B,1,...,1), to multiply a batch shaped like ``like``."""
    return t.reshape(-1, *([1] * (like.ndim - 1)))


def source(start: Tensor, noise: Tensor, noise_scale: float) -> Tensor:
    """The flow's end at t = 1: ``start + noise_scale * noise``; all (B,C,h,w)."""
    return start + noise_scale * noise


def interpolate(x_0: Tensor, x_1: Tensor, t: Tensor) -> Tensor:
    """``x_t`` for times t (B,) in [0,1]."""
    t = expand_time(t, x_0)
    return (1 - t) * x_0 + t * x_1


def velocity_target(x_0: Tensor, x_1: Tensor) -> Tensor:
    """What the network learns: ``dx_t/dt = x_1 - x_0``."""
    return x_1 - x_0


def clean_estimate(x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
    """``x_0 = x_t - t v`` for times t (B,)."""
    return x_t - expand_time(t, x_t) * velocity


def preconditioned_velocity(
    output: Tensor, x_t: Tensor, start: Tensor, t: Tensor, *, noise_scale: float, residual_std: float
) -> Tensor:
    """The velocity when the network is asked only for what is not known without it (after EDM, arXiv 2206.00364).

    Around a start m with residual ``x_0 - m`` of standard deviation sigma, ``x_t - m = (1-t)(x_0 - m) + t s e``. The
    best linear estimate of the residual is ``k (x_t - m)`` with ``k = (1-t) sigma^2 / ((1-t)^2 sigma^2 + t^2 s^2)``
    and leaves an error of standard deviation ``c = sigma s t / sqrt((1-t)^2 sigma^2 + t^2 s^2)``. So
    ``x_0 = m + k (x_t - m) + c output`` and ``v = (x_t - x_0) / t``: the source's own noise is subtracted exactly
    instead of being learnt, and the output has unit variance at every t.

    Args:
        output: what the network gave, (B,C,h,w).
        x_t, start: the point of the path and the source's mean, (B,C,h,w).
        t: times (B,) in (0,1].
        noise_scale: s, the standard deviation of the source's noise.
        residual_std: sigma.
    """
    t = expand_time(t, x_t)
    variance = (1 - t) ** 2 * residual_std**2 + t**2 * noise_scale**2
    gain = (1 - t) * residual_std**2 / variance
    scale_over_t = residual_std * noise_scale / variance.sqrt()
    return (1 - gain) / t * (x_t - start) - scale_over_t * output
