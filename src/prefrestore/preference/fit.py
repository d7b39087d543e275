"""The preference scorer, trained on what people chose: what `prefrestore preference fit` does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prefrestore.data.faces import read_face
from prefrestore.errors import InvalidInputError
from prefrestore.files.atomic import written_beside
from prefrestore.models.scorer import PreferenceScorer, first_scorer, save_scorer, score_all
from prefrestore.preference.bradley_terry import Reliability, reliability
from prefrestore.preference.judgements import Judgement, hold_out, read_judgements
from prefrestore.preference.reliability import reliability_diagram
from prefrestore.preference.scorer_trainer import ScorerObjective, to_unit
from prefrestore.training.loop import Trainer
from prefrestore.training.schedule import LoopConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """``prefrestore preference fit``.

    Args:
        judgements: JSONL files, see `prefrestore.preference.judgements.read_judgements`.
        output_dir: ``scorer/``, ``reliability.png`` and the run's state go here.
        start_from: ``bundled``, ``none`` or a folder.
        held_out: share of the judgements to hold out.
        skip_bad: leave bad lines out and count them.
    """

    judgements: tuple[Path, ...]
    output_dir: Path
    start_from: str = "bundled"
    steps: int = 300
    batch_size: int = 16
    learning_rate: float = 2e-4
    held_out: float = 0.2
    skip_bad: bool = False
    seed: int = 0


def judged_batch(judgements: Sequence[Judgement], size: int, config: Config, step: int) -> dict[str, Tensor]:
    """The batch of one step: both pictures of a pair are mirrored or neither is, and nothing else is changed."""
    rng = np.random.default_rng([config.seed, step])
    images, preference = [], []
    for index in rng.integers(len(judgements), size=config.batch_size):
        pair = [read_face(path, size) for path in (judgements[index].first, judgements[index].second)]
        images += [picture[:, ::-1] for picture in pair] if rng.random() < 0.5 else pair
        preference.append(judgements[index].preference)
    pairs = torch.arange(2 * config.batch_size).reshape(-1, 2)
    return {"images": to_unit(np.stack(images)), "pairs": pairs, "preference": torch.tensor(preference)}


def judged_reliability(scorer: PreferenceScorer, judgements: Sequence[Judgement]) -> Reliability | None:
    """Accuracy and calibration on judgements; ties say nothing about either. None when all are ties."""
    margins = []
    for judgement in judgements:
        if judgement.choice != "tie":
            pair = [read_face(path, scorer.config.image_size) for path in (judgement.first, judgement.second)]
            first, second = score_all(scorer, to_unit(np.stack(pair))).tolist()
            margins.append(first - second if judgement.choice == "first" else second - first)
    return reliability(margins) if margins else None


def run(
    config: Config,
    *,
    log: Callable[[str], None] = print,
    after_step: Callable[[dict[str, float]], bool] | None = None,
) -> Trainer:
    """Read, hold out, train, write ``output_dir/scorer``, and print accuracy and calibration before and after.

    How many judgements there were, and the held-out accuracies, are also in ``output_dir/fit.json``.

    Args:
        config: see `Config`.
        log: prints a line.
        after_step: see `prefrestore.training.loop.Trainer`.

    Raises:
        InvalidInputError: see `read_judgements` and `hold_out`; before anything is trained.
    """
    judgements, bad = read_judgements(config.judgements, skip_bad=config.skip_bad)
    for sentence in bad:
        log(f"left out: {sentence}")
    split = hold_out(judgements, config.held_out, seed=config.seed)
    skipped = f", {len(bad)} bad lines left out" if config.skip_bad else ""
    log(f"{len(judgements)} judgements{skipped}: {len(split.train)} to train on, {len(split.held_out)} held out")
    log(f"held out {split.rule}")
    check_same_run(config, judgements)
    scorer = first_scorer(config.start_from, config.seed)
    before = judged_reliability(scorer, split.held_out)
    _report("before training, held out", before, log)
    size = scorer.config.image_size
    loop = LoopConfig(
        output_dir=config.output_dir / "runs" / "judged",
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=min(50, config.steps // 4),
        ema_decay=0.99,
        seed=config.seed,
    )
    objective = ScorerObjective(scorer)
    trainer = Trainer(
        objective, lambda step: judged_batch(split.train, size, config, step), loop, after_step=after_step
    )
    trainer.fit()
    with trainer.averaged_weights():
        save_scorer(scorer, config.output_dir / "scorer")
        table = judged_reliability(scorer, split.held_out)
    _report("after training, held out", table, log)
    if table is not None:
        reliability_diagram(table, "held-out judgements").save(config.output_dir / "reliability.png")
    summary = {
        "judgements": len(judgements),
        "train": len(split.train),
        "held_out": len(split.held_out),
        "rule": split.rule,
        "before": _figures(before),
        "after": _figures(table),
    }
    with written_beside(config.output_dir / "fit.json") as part:
        part.write_text(json.dumps(summary, indent=2) + "\n")
    return trainer


def _figures(table: Reliability | None) -> dict[str, float] | None:
    return None if table is None else {"pairs": table.n, "accuracy": table.accuracy}


def check_same_run(config: Config, judgements: Sequence[Judgement]) -> None:
    """Refuse to resume with other judgements or another split: what was held out may have been trained on.

    Raises:
        InvalidInputError: the run under ``output_dir`` was started with something else.
    """
    rows = [[str(one.first), str(one.second), one.choice, one.who, one.group] for one in judgements]
    started = [config.start_from, config.held_out, config.seed, rows]
    digest = hashlib.sha256(json.dumps(started).encode()).hexdigest()
    record = config.output_dir / "runs" / "judged" / "judgements.sha256"
    if record.is_file() and record.read_text().strip() != digest:
        raise InvalidInputError(
            f"{config.output_dir} holds a run with other judgements, another seed, share or start: name a new folder"
        )
    with written_beside(record) as part:
        part.write_text(digest + "\n")


def _report(title: str, table: Reliability | None, log: Callable[[str], None]) -> None:
    log(f"{title}:")
    for line in table.lines() if table is not None else ["ties only, which say nothing about accuracy"]:
        log(f"  {line}")
