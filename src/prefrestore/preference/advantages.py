"""How much better than its siblings each restoration is: the baseline of every policy objective."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from prefrestore.errors import InvalidInputError


class Advantages(NamedTuple):
    """values: (N,), NaN for samples that are left out. valid: (N,) bool. skipped: how many are left out."""

    values: Tensor
    valid: Tensor
    skipped: int


def group_advantages(rewards: Tensor, groups: Tensor, *, epsilon: float = 1e-4) -> Advantages:
    """``A = (R - mean of its LQ image's group) / (std over the whole batch + epsilon)``.

    Flow-GRPO (arXiv 2505.05470) with one standard deviation for the batch, as in DiffusionNFT (arXiv 2509.16117); it is
    the population's (divided by N). A group is an LQ image, never a caption: images that share a caption differ in how
    good a restoration they allow, and a shared baseline would reward the easy image instead of the good restoration.

    A sample without a finite reward is left out; so is the only one left of its group, which has nothing to be compared
    with. Both are counted. With several processes, gather rewards and groups first: the spread is the whole batch's.

    Args:
        rewards: (N,), higher is better; NaN where a sample could not be scored.
        groups: (N,) integers, which LQ image each sample restores; in any order.
        epsilon: keeps equal rewards from dividing by zero.

    Raises:
        InvalidInputError: shapes differ, a group has one sample, or no group has two samples with a reward.
    """
    if rewards.ndim != 1 or rewards.shape != groups.shape:
        raise InvalidInputError(
            f"advantages need one reward and one group a sample, not {tuple(rewards.shape)} and {tuple(groups.shape)}"
        )
    ids, index, sizes = torch.unique(groups, return_inverse=True, return_counts=True)
    if (sizes < 2).any():
        lone = int(ids[sizes < 2][0])
        raise InvalidInputError(f"group {lone} has one restoration, and an advantage compares at least two of one face")
    scored = torch.isfinite(rewards)
    kept = torch.zeros(len(ids), dtype=torch.long, device=rewards.device).index_add_(0, index, scored.long())
    valid = scored & (kept[index] > 1)
    if not valid.any():
        raise InvalidInputError("no face of this batch has two restorations with a reward")
    # Zeros in place of what is left out keep NaN out of the sums, and each group is divided by what it kept.
    known = torch.where(valid, rewards, 0.0)
    mean = torch.zeros(len(ids), dtype=known.dtype, device=known.device).index_add_(0, index, known) / kept.clamp(min=1)
    spread = rewards[valid].std(correction=0)
    values = torch.where(valid, (rewards - mean[index]) / (spread + epsilon), torch.nan)
    return Advantages(values, valid, int((~valid).sum()))
