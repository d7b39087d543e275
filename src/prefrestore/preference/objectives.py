"""The losses that turn rewards into a better flow: pure functions of tensors, which know no model and no reward.

Every loss comes with its parts, detached scalars for the log.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from prefrestore.errors import InvalidInputError
from prefrestore.models.texture.flow import clean_estimate

Parts = dict[str, Tensor]


def velocity_kl(velocity: Tensor, velocity_reference: Tensor) -> Tensor:
    """``(v - v_ref)^2`` of (B,C,h,w), mean over a sample's dimensions: (B,). No gradient to the reference.

    Up to a factor of t alone, the KL divergence between the two policies' steps.
    """
    return _sample_mean((velocity - velocity_reference.detach()) ** 2)


def nft_loss(
    velocity: Tensor,
    velocity_old: Tensor,
    velocity_reference: Tensor,
    x_t: Tensor,
    x_0: Tensor,
    t: Tensor,
    advantage: Tensor,
    *,
    beta: float = 0.1,
    advantage_clip: float = 5.0,
    kl_weight: float = 1e-4,
) -> tuple[Tensor, Parts]:
    """DiffusionNFT (arXiv 2509.16117): learn the forward process with good samples as positives, bad as negatives.

        ``r    = clip(A / A_max, -1, 1) / 2 + 1/2``
        ``v+   = (1 - b) v_old + b v``,   ``v- = (1 + b) v_old - b v``
        ``l(v) = mean((x_t - t v - x_0)^2) / max(mean|x_t - t v - x_0|, 1e-5)``, the denominator without a gradient
        ``L    = A_max mean((r l(v+) + (1 - r) l(v-)) / b) + kl_weight mean((v - v_ref)^2)``

    A sample of advantage 0 (r = 1/2) pulls both ways alike and leaves v at v_old. The loss asks nothing of the source:
    ``x_t`` may lead to noise or to ``m + s e``.

    Args:
        velocity: the trained policy's at x_t, (B,C,h,w); the only input that gets a gradient.
        velocity_old, velocity_reference: those of the policy that drew the samples, and of the base, (B,C,h,w).
        x_t: ``(1-t) x_0 + t x_1`` with a fresh source x_1, (B,C,h,w), in float32 or better.
        x_0: the sampled clean latents, (B,C,h,w).
        t: (B,) in (0,1].
        advantage: (B,), finite; see `prefrestore.preference.advantages.group_advantages`.
        beta: b, how far v+ and v- stand from v_old.
        advantage_clip: A_max.
        kl_weight: of the distance to the reference.

    Returns:
        The loss, and ``policy``, ``kl``, ``positive`` and ``negative`` (mean l of each side), ``old_deviation`` (mean
        ``(v - v_old)^2``).
    """
    velocity = velocity.to(x_t.dtype)
    velocity_old, velocity_reference = velocity_old.detach().to(x_t.dtype), velocity_reference.detach().to(x_t.dtype)
    x_0 = x_0.detach()

    def error(of: Tensor) -> Tensor:
        residual = clean_estimate(x_t, of, t) - x_0
        return _sample_mean(residual**2) / _sample_mean(residual.detach().abs()).clamp(min=1e-5)

    positive = error((1 - beta) * velocity_old + beta * velocity)
    negative = error((1 + beta) * velocity_old - beta * velocity)
    r = (advantage.detach() / advantage_clip).clamp(-1, 1) / 2 + 0.5
    policy = advantage_clip * ((r * positive + (1 - r) * negative) / beta).mean()
    kl = velocity_kl(velocity, velocity_reference).mean()
    loss = policy + kl_weight * kl
    old_deviation = velocity_kl(velocity, velocity_old).mean()
    return loss, _detached(
        policy=policy, kl=kl, positive=positive.mean(), negative=negative.mean(), old_deviation=old_deviation
    )


def grpo_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    *,
    clip_range: float,
    kl: Tensor | None = None,
    kl_weight: float = 0.0,
) -> tuple[Tensor, Parts]:
    """Flow-GRPO (arXiv 2505.05470): the clipped policy gradient of SDE steps.

    ``L = -mean(min(rho A, clip(rho, 1 - c, 1 + c) A)) + kl_weight mean(kl)``, ``rho = exp(log_prob - old_log_prob)``.

    Args:
        log_prob, old_log_prob: of the steps under the trained policy and under the one that took them, (B,), in nats
            per dimension (`prefrestore.models.texture.sampler.gaussian_log_prob`).
        advantage: (B,), finite; that of the restoration that the step led to.
        clip_range: c; with log-probabilities per dimension ratios move little, and 1e-4 is a usual range.
        kl: to the reference, (B,), see `gaussian_kl`.
        kl_weight: its weight.

    Returns:
        The loss, and ``policy``, ``kl``, ``ratio`` (mean rho), ``clipped`` (share of steps that get no gradient).
    """
    ratio = (log_prob - old_log_prob.detach()).exp()
    advantage = advantage.detach()
    free, held = ratio * advantage, ratio.clamp(1 - clip_range, 1 + clip_range) * advantage
    policy = -torch.minimum(free, held).mean()
    divergence = _mean_or_zero(kl, policy)
    parts = _detached(policy=policy, kl=divergence, ratio=ratio.mean(), clipped=(held < free).to(ratio.dtype).mean())
    return policy + kl_weight * divergence, parts


def gaussian_kl(mean: Tensor, mean_reference: Tensor, std: Tensor) -> Tensor:
    """KL divergence of two steps with one std: ``(mean - mean_ref)^2 / (2 std^2)``, in nats per dimension: (B,).

    Flow-GRPO's KL to the reference. Means (B,C,h,w) and std (B,1,1,1) from `sampler.sde_moments`;
    no gradient to the reference.
    """
    return _sample_mean((mean - mean_reference.detach()) ** 2 / (2 * std**2))


def reward_gradient_loss(
    rewards: Tensor,
    *,
    centre: float = 0.0,
    scale: float = 1.0,
    kl: Tensor | None = None,
    kl_weight: float = 0.0,
) -> tuple[Tensor, Parts]:
    """Climb a differentiable reward: DRaFT (arXiv 2309.17400) and ReFL (ImageReward, arXiv 2304.05977).

    ``L = -mean((R - centre) / scale) + kl_weight mean(kl)``. Through which steps of the sampler the reward's gradient
    flows back (DRaFT-K: the last K; ReFL: one late step) is the caller's choice, by where it stops gradients.

    Args:
        rewards: (B,), higher is better, with a gradient; samples that are not finite are left out.
        centre, scale: constants that standardise the reward, such as its mean and standard deviation before training.
        kl: to the reference, (B,), see `velocity_kl`.
        kl_weight: its weight.

    Returns:
        The loss, and ``policy``, ``kl``, ``reward`` (mean, not standardised), ``skipped`` (samples left out).

    Raises:
        InvalidInputError: no reward is finite, or the scale is not positive.
    """
    if scale <= 0:
        raise InvalidInputError(f"the reward's scale must be positive, not {scale}")
    scored = torch.isfinite(rewards)
    if not scored.any():
        raise InvalidInputError("no restoration of this batch has a reward")
    reward = rewards[scored].mean()
    policy = -(reward - centre) / scale
    divergence = _mean_or_zero(kl, policy)
    parts = _detached(policy=policy, kl=divergence, reward=reward, skipped=(~scored).sum())
    return policy + kl_weight * divergence, parts


def old_policy_decay(step: int, rate: float = 0.001, most: float = 0.5) -> float:
    """``d = min(rate * step, most)`` of ``theta_old <- d theta_old + (1-d) theta``: DiffusionNFT's slowing old policy.

    At step 0 the old policy becomes the trained one; later it trails it.
    """
    return min(rate * step, most)


@torch.no_grad()
def update_average(target: Iterable[Tensor], source: Iterable[Tensor], decay: float) -> None:
    """In place ``target <- decay target + (1 - decay) source``, parameter by parameter.

    Serves the old policy (`old_policy_decay`) and an exponential moving average of the trained one.

    Raises:
        InvalidInputError: the decay is outside [0,1], or the parameters differ in number or in shape.
    """
    targets, sources = list(target), list(source)
    if not 0 <= decay <= 1:
        raise InvalidInputError(f"a decay lies in 0..1, not {decay}")
    if [p.shape for p in targets] != [p.shape for p in sources]:
        raise InvalidInputError("an average needs two sets of parameters of the same shapes")
    for into, new in zip(targets, sources, strict=True):
        into.lerp_(new.to(into), 1 - decay)


def _sample_mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)


def _mean_or_zero(kl: Tensor | None, like: Tensor) -> Tensor:
    return like.new_zeros(()) if kl is None else kl.mean()


def _detached(**parts: Tensor) -> Parts:
    return {name: value.detach() for name, value in parts.items()}


def group_means(latents: Tensor, groups: Tensor) -> Tensor:
    """Each latent's group's mean, (N,C,h,w) like the latents themselves; differentiable."""
    numbers, index = groups.unique(return_inverse=True)
    flat = latents.flatten(1)
    sums = flat.new_zeros(len(numbers), flat.shape[1]).index_add(0, index, flat)
    return (sums / torch.bincount(index)[:, None])[index].reshape(latents.shape)


def group_distances(latents: Tensor, groups: Tensor) -> Tensor:
    """Mean squared distance (N,) of each latent (N,C,h,w) to the mean of its group; differentiable."""
    return (latents - group_means(latents, groups)).square().flatten(1).mean(1)
