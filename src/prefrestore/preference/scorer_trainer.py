"""The preference scorer, trained on pairs of known order: nobody has to be asked that a face is better than its blur.

`prefrestore.preference.fit` trains the same network on what people chose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from prefrestore.errors import InvalidInputError
from prefrestore.files.fingerprints import digest
from prefrestore.models.scorer import PreferenceScorer, first_scorer, save_scorer, score_all
from prefrestore.preference.bradley_terry import bradley_terry_loss, reliability
from prefrestore.preference.known_order import LADDERS, PAIRS, augment, preference_of
from prefrestore.preference.reliability import reliability_diagram
from prefrestore.preference.restored import SETTINGS, RestoredLadders, restored_ladders
from prefrestore.training.identity import run_identity
from prefrestore.training.loop import Trainer
from prefrestore.training.pairs import load_training_mix, load_validation
from prefrestore.training.stage import StageConfig

if TYPE_CHECKING:
    from prefrestore.data.faces import FaceSet
    from prefrestore.data.mix import FaceMix
    from prefrestore.pipeline.pipeline import PrefRestorePipeline

SHARES = {
    "restored": 0.24,
    "round trip": 0.06,
    "degraded": 0.14,
    "blurred": 0.05,
    "noisy": 0.06,
    "oversharpened": 0.06,
    "compressed": 0.16,
    "warped": 0.19,
    "equal": 0.04,
}
"""How often each kind of ladder is drawn; without restored faces the first two fall away."""


@dataclass(frozen=True, kw_only=True)
class Config(StageConfig):
    """``prefrestore train scorer``.

    Args:
        data: folders of aligned faces (or the layout of the project's data card); validation faces are never
            trained on.
        output_dir: the working folder; ``scorer/`` is written to it.
        preset: names the restorer whose pictures are ranked below the sharp faces.
        model: a pipeline folder in place of that preset's bundled weights.
        restored_faces: how many faces are restored for it, and kept; 0 trains without a restorer.
        start_from: none for new weights, bundled for the scorer that comes with the package, or a folder.
        batch_size: ladders a step, of three pictures and three pairs each.
    """

    model: Path | None = None
    restored_faces: int = 144
    start_from: str = "none"
    steps: int = 600
    batch_size: int = 10
    learning_rate: float = 2e-3
    sample_every: int = 200


class ScorerObjective(nn.Module):
    """The Bradley-Terry loss of a scorer on pairs among the pictures of a batch."""

    def __init__(self, scorer: PreferenceScorer) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(
        self, images: Tensor, pairs: Tensor, preference: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Images (N,3,H,W) in [0,1], pairs (P,2) of (chosen, rejected), preference (P,) -> loss, accuracy.

        The accuracy leaves ties out (1 when there is nothing else).
        """
        del generator  # nothing in this stage is random beyond the batch
        chosen, rejected = self.scorer(images)[pairs].unbind(1)
        sure = preference > 0.5
        right = ((chosen > rejected) & sure).sum() / sure.sum() if sure.any() else torch.ones(())
        return {"loss": bradley_terry_loss(chosen, rejected, preference), "accuracy": right}


def to_unit(faces: np.ndarray) -> Tensor:
    """Faces (N,H,W,3) uint8 -> (N,3,H,W) float32 in [0,1]."""
    return torch.from_numpy(np.array(faces)).permute(0, 3, 1, 2).float().div_(255).contiguous()


def ladder_of(
    kind: str, face: np.ndarray, restored: RestoredLadders | None, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[tuple[int, int], ...]]:
    """Pictures (K,H,W,3) of one face and the pairs among them; restored kinds draw a face of their own."""
    if kind in LADDERS:
        return np.stack(LADDERS[kind](face, rng)), PAIRS
    if restored is None:
        raise InvalidInputError(f"there is no restorer for pairs of the kind '{kind}'")
    index = int(rng.integers(len(restored)))
    if kind == "round trip":
        return restored.round_trip(index), ((0, 1),)
    return restored.ladder(index, int(rng.integers(len(SETTINGS)))), PAIRS


def training_batch(faces: FaceMix, restored: RestoredLadders | None, config: Config, step: int) -> dict[str, Tensor]:
    """The batch of one step, a pure function of the configuration and the step."""
    rng = np.random.default_rng([config.seed, step])
    kinds = [kind for kind in SHARES if restored is not None or kind in LADDERS]
    shares = np.array([SHARES[kind] for kind in kinds])
    drawn = faces.images(faces.draw(config.batch_size, seed=config.seed, step=step))
    images: list[np.ndarray] = []
    pairs: list[tuple[int, int]] = []
    preference: list[float] = []
    for face, kind in zip(drawn, rng.choice(kinds, len(drawn), p=shares / shares.sum()), strict=True):
        pictures, among = ladder_of(str(kind), np.ascontiguousarray(face), restored, rng)
        pairs += [(first + len(images), second + len(images)) for first, second in among]
        preference += [preference_of(str(kind))] * len(among)
        images += list(augment(pictures, rng))
    return {
        "images": to_unit(np.stack(images)),
        "pairs": torch.tensor(pairs),
        "preference": torch.tensor(preference),
    }


def held_out_margins(
    scorer: PreferenceScorer, faces: FaceSet, restored: RestoredLadders | None, *, seed: int
) -> dict[str, np.ndarray]:
    """Score of the better minus score of the worse picture, by kind, for one ladder of each kind and face.

    Restored faces give one ladder a setting. Nothing is augmented. For the tied kinds the sign means nothing.
    """
    margins: dict[str, list[float]] = {}

    def add(kind: str, pictures: np.ndarray, among: tuple[tuple[int, int], ...]) -> None:
        scores = score_all(scorer, to_unit(pictures))
        margins.setdefault(kind, []).extend(float(scores[first] - scores[second]) for first, second in among)

    for place, kind in enumerate(LADDERS):
        for row in range(len(faces)):
            rng = np.random.default_rng([seed, place, row])
            add(kind, np.stack(LADDERS[kind](np.array(faces.images[row]), rng)), PAIRS)
    if restored is not None:
        for index in range(len(restored)):
            add("round trip", restored.round_trip(index), ((0, 1),))
            for setting in range(len(SETTINGS)):
                add("restored", restored.ladder(index, setting), PAIRS)
    return {kind: np.array(values) for kind, values in margins.items()}


def restorer(config: Config) -> tuple[Callable[[], PrefRestorePipeline], object]:
    """How the restorer of a configuration is loaded, and what tells it from another one."""
    from prefrestore.files.weights import verify
    from prefrestore.pipeline.build import load_preset_pipeline
    from prefrestore.pipeline.presets import preset_identity, weights_folder

    def load() -> PrefRestorePipeline:
        return load_preset_pipeline(config.preset, folder=config.model, face_size="core")

    folder = weights_folder(config.preset, config.model)
    return load, preset_identity(config.preset) if folder is None else verify(folder)


def run(config: Config, *, log: Callable[[str], None] = print) -> Trainer:
    """Restore the faces it needs, train the scorer, and write ``output_dir/scorer`` in half precision."""
    scorer = first_scorer(config.start_from, config.seed)
    size = scorer.config.image_size
    faces = load_training_mix(config.data, size)
    validation = load_validation(config.data, size)
    held_out = validation.subset(np.linspace(0, len(validation) - 1, min(24, len(validation))).astype(int))
    stands_on: dict[str, nn.Module | str] = {"start": scorer}
    restored = None
    if config.restored_faces:
        load, weights = restorer(config)
        stands_on["restorer"] = digest(weights)
        # Photographs only: drawn faces have the look of another generator, which would be an easy way to tell.
        restored = restored_ladders(
            load,
            weights,
            faces.sets[0],
            config.output_dir / "runs",
            count=config.restored_faces,
            seed=0,  # data, like the faces: another seed of the training sees the same restorations
            bf16=config.mixed_precision == "bf16",
            log=log,
        )

    def sample() -> Image.Image:
        margins = held_out_margins(scorer, held_out, None, seed=config.seed)
        sure = {kind: values for kind, values in margins.items() if preference_of(kind) == 1}
        table = reliability(np.concatenate(list(sure.values())))
        log("held out " + " ".join(f"{kind} {(values > 0).mean():.3f}" for kind, values in sure.items()))
        log(table.lines()[-1])
        return reliability_diagram(table, "held-out faces")

    identity = run_identity("scorer", config, faces, stands_on)
    trainer = Trainer(
        ScorerObjective(scorer),
        lambda step: training_batch(faces, restored, config, step),
        config.loop("scorer", ema_decay=0.99, warmup_steps=20),
        sample=sample,
        identity=identity,
    )
    trainer.fit()
    trainer.export(config.output_dir, {"scorer": lambda folder: save_scorer(scorer, folder)})
    return trainer
