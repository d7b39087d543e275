"""Rewards: one file each, made by name, so that a command line or a configuration can say which.

A reward is built with its weights, so what is missing is told before any training step.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
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

PUBLISHED = "published"
"""The name of the mix of Pref-Restore's run."""
PUBLISHED_MIX = {"pickscore": 1.0, "hps": 1.0, "clipscore": 1.0, "landmarks": 0.5, "identity": 0.5, "lpips": 0.5}
PUBLISHED_OPTIONS: dict[str, dict[str, Any]] = {"landmarks": {"points": 98}, "lpips": {"net": "vgg"}}
"""What its rewards are beside their defaults; the files of landmarks, identity and hps are the user's to name."""


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


def build_mix(
    weights: Mapping[str, float], options: Mapping[str, Mapping[str, Any]] | None = None, *, raw: bool = False
) -> RewardMix:
    """A `RewardMix` from weights by name (see `parse_mix`) and, where wanted, options by name.

    Args:
        raw: see `RewardMix`.

    Raises:
        InvalidInputError: see `build_reward` and `RewardMix`, or options of a reward that is not in the mix.
        WeightsError, MissingDependencyError: see `build_reward`.
    """
    from prefrestore.preference.rewards.mix import RewardMix

    options = options or {}
    if surplus := sorted(options.keys() - weights.keys()):
        raise InvalidInputError(f"there are options for the reward {surplus[0]}, which is not in the mix")
    terms = [(build_reward(name, **options.get(name, {})), weight) for name, weight in weights.items()]
    return RewardMix(terms, raw=raw)


def parse_mix(text: str) -> dict[str, float]:
    """``"identity=1,lpips=0.5"`` -> weights by name; ``"published"`` -> `PUBLISHED_MIX`.

    Raises:
        InvalidInputError: not ``name=weight`` with commas between, an unknown name, one twice, or no weight above 0.
    """
    if text.strip() == PUBLISHED:
        return dict(PUBLISHED_MIX)
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


def read_options(text: str, path: Path | None) -> dict[str, dict[str, Any]]:
    """The options by reward of a mix (see `parse_mix`), from a JSON object of objects, such as
    ``{"landmarks": {"points": 98, "weights": "WFLW_4HG.pth"}}``.

    Raises:
        InvalidInputError: the file is no such object, or names no ArcFace for the published mix.
    """
    given: dict[str, dict[str, Any]] = {}
    if path is not None:
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"{path} is not a file of reward options ({error})") from error
        if not isinstance(given, dict) or not all(isinstance(entry, dict) for entry in given.values()):
            raise InvalidInputError(f"{path} is not a file of reward options: a JSON object with one for each reward")
    if text.strip() != PUBLISHED:
        return given
    if not given.get("identity", {}).get("weights"):
        # Without a file the identity would be SFace's, which is another reward than the published one.
        raise InvalidInputError(
            "the published mix needs the files of its networks: name them in --reward-options, ArcFace's as the "
            "'weights' of identity, those of 98 points as the 'weights' of landmarks, HPSv2.1 as the 'open_clip' of hps"
        )
    return {name: PUBLISHED_OPTIONS.get(name, {}) | given.get(name, {}) for name in {**PUBLISHED_OPTIONS, **given}}


def asked_options(
    text: str, path: Path | None, scorer: Path | None, names: Collection[str]
) -> dict[str, dict[str, Any]]:
    """`read_options`, and the folder of the reward ``preference``, for the rewards of these names.

    Raises:
        InvalidInputError: see there, or options of a reward that is not among the names.
    """
    own = read_options(text, path)
    if scorer is not None:
        if "preference" not in names:
            raise InvalidInputError(f"--scorer is for the reward preference, which is not in {text}")
        own["preference"] = {"folder": scorer}
    if surplus := sorted(own.keys() - set(names)):
        raise InvalidInputError(f"{path} has options for {surplus[0]}, which is not in the mix")
    return own


def _check_options(name: str, make: Any, options: Mapping[str, Any]) -> None:
    import inspect

    known = list(inspect.signature(make).parameters)
    for option in options:
        if option not in known:
            raise InvalidInputError(f"the reward {name} has no option '{option}'; it has {', '.join(known) or 'none'}")
