"""Rewards: one file each, made by name, so that a command line or a configuration can say which.

A reward is built with its weights, so what is missing is told before any training step.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from prefrestore.errors import InvalidInputError

if TYPE_CHECKING:
    from prefrestore.preference.rewards.base import Reward
    from prefrestore.preference.rewards.mix import RewardMix

# Module and class; imported when asked for, because torch and transformers take seconds.
REWARDS = {
    "identity": ("identity", "IdentityReward"),
    "dlib_identity": ("dlib_identity", "DlibIdentityReward"),
    "landmarks": ("landmarks", "LandmarkReward"),
    "lpips": ("lpips", "LpipsReward"),
    "psnr": ("psnr", "PsnrReward"),
    "preference": ("preference", "PreferenceReward"),
    "pickscore": ("pickscore", "PickScoreReward"),
    "hps": ("hps", "HpsReward"),
    "clipscore": ("clipscore", "ClipScoreReward"),
}


def build_reward(name: str, **options: Any) -> Reward:
    """A reward of `REWARDS` by name; the options are its class's arguments (``points=68``, ``model="folder"`` ...).

    Raises:
        InvalidInputError: an unknown reward or option.
        WeightsError, MissingDependencyError: what it needs is not there.
    """
    if name not in REWARDS:
        raise InvalidInputError(f"there is no reward '{name}': choose among {', '.join(REWARDS)}")
    module, kind = REWARDS[name]
    make = getattr(import_module(f"{__name__}.{module}"), kind)
    _check_options(name, make, options)
    return make(**options)


def build_mix(weights: Mapping[str, float], options: Mapping[str, Mapping[str, Any]] | None = None) -> RewardMix:
    """A `RewardMix` from weights by name (see `parse_mix`) and, where wanted, options by name.

    Raises:
        InvalidInputError: see `build_reward` and `RewardMix`, or options of a reward that is not in the mix.
        WeightsError, MissingDependencyError: see `build_reward`.
    """
    from prefrestore.preference.rewards.mix import RewardMix

    options = options or {}
    if surplus := sorted(options.keys() - weights.keys()):
        raise InvalidInputError(f"there are options for the reward {surplus[0]}, which is not in the mix")
    return RewardMix([(build_reward(name, **options.get(name, {})), weight) for name, weight in weights.items()])


def parse_mix(text: str) -> dict[str, float]:
    """``"identity=1,lpips=0.5"`` -> weights by name.

    Raises:
        InvalidInputError: not ``name=weight`` with commas between, an unknown name, one twice, or no weight above 0.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        if name not in REWARDS:
            raise InvalidInputError(f"there is no reward '{name}' in '{text}': choose among {', '.join(REWARDS)}")
        if name in weights:
            raise InvalidInputError(f"the reward {name} is twice in '{text}'")
        try:
            weights[name] = float(number)
        except ValueError:
            raise InvalidInputError(f"'{part.strip()}' is not of the form name=weight") from None
        if not 0 < weights[name] < float("inf"):
            raise InvalidInputError(f"the reward {name} needs a weight above 0, not {number}")
    return weights


def _check_options(name: str, make: Any, options: Mapping[str, Any]) -> None:
    import inspect

    known = list(inspect.signature(make).parameters)
    for option in options:
        if option not in known:
            raise InvalidInputError(f"the reward {name} has no option '{option}'; it has {', '.join(known) or 'none'}")
