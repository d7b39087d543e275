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


def clean_estimate(x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
    """``x_0 = x_t - t v`` for times t (B,)."""
    return x_t - expand_time(t, x_t) * velocity


def residual_velocity(output: Tensor, x_t: Tensor, start: Tensor, t: Tensor, *, residual_std: float) -> Tensor:
    """The velocity when the network is asked for the clean latent, as a change of the start.

    ``x_0 = m + sigma output`` and ``v = (x_t - x_0) / t``: the clean latent is what a small network can give (arXiv
    2511.13720), and nothing of ``x_t`` is passed by the network into the result. A noisy network therefore leaves no
    noise behind: each step of a sampler shrinks what ``x_t`` holds of the source's by t'/t, down to none at t = 0. (A
    skip that is optimal on average, as of EDM, arXiv 2206.00364, amplifies noise wherever the residual is smaller
    than sigma, which at this scale was most of the picture.)

    Args:
        output: what the network gave, (B,C,h,w).
        x_t, start: the point of the path and the source's mean m, (B,C,h,w).
        t: times (B,) in (0,1].
        residual_std: sigma, the standard deviation of ``x_0 - m``, so that the output has about unit variance.
    """
    return (x_t - start - residual_std * output) / expand_time(t, x_t)
