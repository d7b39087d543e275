"""The last octave learns to turn restored faces of the core's size into faces twice as large.

The core is frozen: what it makes of many seeded pairs is computed once, and every step sees small squares of them for
L1 and LPIPS, and a few whole faces for likeness. A discriminator of squares can join them; it cost likeness where it
was tried (docs/notes/last-octave.md), so it is off unless asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.errors import InvalidInputError
from prefrestore.files.fingerprints import FORMAT
from prefrestore.metrics.lpips import random_view
from prefrestore.models.texture.last_octave import FACTOR, core_view, enlarged
from prefrestore.training.components import component_folder
from prefrestore.training.discriminator import LatentDiscriminator, adversarial_losses, pull
from prefrestore.training.encoder import first_weights
from prefrestore.training.identity import parameter_hash, run_identity, start_hash
from prefrestore.training.images import grid, to_signed
from prefrestore.training.loop import Trainer
from prefrestore.training.pairs import cached_pairs, degraded_batch, held_out_pairs, load_training_mix
from prefrestore.training.processes import main_process_first, new_accelerator
from prefrestore.training.stage import StageConfig
from prefrestore.training.working import working_pipeline

if TYPE_CHECKING:
    from prefrestore.training.likeness import LikenessLoss

_SQUARE = 4  # px of the picture that one place of the discriminator sees first
_GRID = 16  # crops begin and end on it, as the network's coarsest places do


@dataclass(frozen=True, kw_only=True)
class Config(StageConfig):
    """``prefrestore train octave``.

    Args:
        data: folders of aligned faces (or the layout of the project's data card).
        output_dir: the working folder, which holds a finished core; ``last_octave/`` is written to it.
        preset: names the architecture.
        degradation: a preset of `prefrestore.degrade`.
        pairs: how many degraded pairs are cached with what the core makes of them.
        min_side: faces stored smaller than this, in px, are left out: they have no last octave.
        crop: side of the squares that are learnt from, px of the large pictures; a multiple of 16.
        l1_weight, perceptual_weight: of L1 and LPIPS. L1 decides how much of a good input comes through.
        identity_weight, features_weight: of `prefrestore.training.likeness` on ``faces`` whole faces a step, halved to
            the core's size: LPIPS alone draws, and redraws, what a recogniser takes for another person.
        face_margin: px of the large picture at each side of those faces that are left out; a multiple of 16.
        adversarial_weight: length of the gradient of a discriminator of squares
            (`prefrestore.training.discriminator`), measured by L1's; over ``adversarial_warmup`` steps it grows to it.
        coarse: the component that is written keeps so much of what is drawn below the octave: LPIPS asks for more
            there than likeness bears.
        start_from: a working folder whose ``last_octave/`` gives the first weights.
    """

    degradation: str = "large-faces"
    pairs: int = 1024
    min_side: int = 480
    steps: int = 1200
    batch_size: int = 8
    learning_rate: float = 1e-3
    crop: int = 160
    l1_weight: float = 4.0
    perceptual_weight: float = 1.0
    identity_weight: float = 1.0
    features_weight: float = 2.0
    faces: int = 1
    face_margin: int = 48
    adversarial_weight: float = 0.0
    adversarial_warmup: int = 100
    coarse: float = 1.0
    start_from: Path | None = None

    @property
    def sees_faces(self) -> bool:
        """Whether any loss looks at whole faces."""
        return self.faces > 0 and max(self.identity_weight, self.features_weight) > 0


class OctaveObjective(nn.Module):
    """L1 between large restored squares and the clean ones, LPIPS, a discriminator, and the likeness of whole faces.

    None leaves one out.
    """

    def __init__(
        self,
        last_octave: nn.Module,
        config: Config,
        *,
        perceptual: nn.Module | None = None,
        likeness: LikenessLoss | None = None,
        discriminator: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.last_octave, self.config = last_octave, config
        self.perceptual, self.likeness, self.discriminator = perceptual, likeness, discriminator

    def forward(
        self,
        restored: Tensor,
        lq: Tensor,
        targets: Tensor,
        generator: torch.Generator,
        step: int = 0,
        whole_restored: Tensor | None = None,
        whole_lq: Tensor | None = None,
        whole_targets: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The core's squares (B,3,h,w), degraded and clean ones (B,3,2h,2w), all in [-1,1] -> losses.

        The last three are the same of whole faces without their margins.
        """
        config = self.config
        made = self.last_octave(restored, lq).float()
        losses = {"l1": F.l1_loss(made, targets)}
        total = config.l1_weight * losses["l1"]
        if self.perceptual is not None:
            losses["lpips"] = self.perceptual(*random_view(made, targets, generator)).mean()
            total = total + config.perceptual_weight * losses["lpips"]
        if self.likeness is not None and whole_targets is not None:
            whole = self.last_octave(whole_restored, whole_lq)
            with torch.autocast(whole.device.type, enabled=False):
                seen = (F.avg_pool2d(each.float(), FACTOR) for each in (whole, whole_targets))
                losses |= self.likeness(*seen, generator, margin=config.face_margin // FACTOR)
            total = total + config.identity_weight * losses["identity"]
            total = total + config.features_weight * losses["features"]
        if self.discriminator is not None:
            squares, clean, start = (F.pixel_unshuffle(each, _SQUARE) for each in (made, targets, enlarged(restored)))
            losses["discriminator"], direction = adversarial_losses(
                self.discriminator, clean, squares, start, generator
            )
            weight = config.adversarial_weight * min(1.0, step / max(1, config.adversarial_warmup))
            # The gradient of a sample's summed L1 has as many ones as it has numbers.
            length = config.l1_weight * weight * squares[0].numel() ** 0.5
            total = total + losses["discriminator"] + pull(direction, squares, length)
        return losses | {"loss": total}


def new_objective(config: Config) -> OctaveObjective:
    """The last octave of the preset, new or continued, and the networks that its losses ask for."""
    from prefrestore.pipeline.components import build_component
    from prefrestore.pipeline.presets import load_preset

    octave = build_component(load_preset(config.preset), "last_octave", trained=("last_octave",), seed=config.seed)
    if config.start_from is not None:
        first_weights(octave, component_folder(config.start_from, "last_octave"))
    networks: dict[str, Any] = {}
    if config.perceptual_weight > 0:
        from prefrestore.metrics.lpips import LPIPS

        networks["perceptual"] = LPIPS("alex").requires_grad_(False)
    if config.sees_faces:
        from prefrestore.metrics.sface import SFaceNetwork
        from prefrestore.training.likeness import LikenessLoss

        networks["likeness"] = LikenessLoss(SFaceNetwork())
    if config.adversarial_weight > 0:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)  # layers draw their first weights from the global generator
            networks["discriminator"] = LatentDiscriminator(3 * _SQUARE**2, widths=(64, 96, 128))
    return OctaveObjective(octave, config, **networks)


def cut(pairs: Mapping[str, np.ndarray], index: np.ndarray, places: np.ndarray, crop: int) -> dict[str, np.ndarray]:
    """The same square of each of a pair's pictures: ``restored`` (B,crop/2,crop/2,3), ``lq``, ``targets``, uint8.

    places: (B,2), top and left, px of the large pictures.
    """
    squares: dict[str, list[np.ndarray]] = {"restored": [], "lq": [], "targets": []}
    for row, (top, left) in zip(index, places, strict=True):
        for name, factor in (("restored", FACTOR), ("lq", 1), ("targets", 1)):
            y, x, side = top // factor, left // factor, crop // factor
            squares[name].append(pairs[name][row, y : y + side, x : x + side])
    return {name: np.stack(found) for name, found in squares.items()}


def batch_of(pairs: Mapping[str, np.ndarray], config: Config, step: int) -> dict[str, Any]:
    """What `OctaveObjective.forward` takes beside the generator."""
    rng = np.random.default_rng([config.seed, 1, step])
    index = rng.integers(len(pairs["targets"]), size=config.batch_size)
    size = pairs["targets"].shape[1]
    places = rng.integers((size - config.crop) // _GRID + 1, size=(len(index), 2)) * _GRID
    batch: dict[str, Any] = {name: to_signed(part) for name, part in cut(pairs, index, places, config.crop).items()}
    if config.sees_faces:
        shown = rng.integers(len(pairs["targets"]), size=config.faces)
        margin = config.face_margin
        whole = cut(pairs, shown, np.full((config.faces, 2), margin), size - 2 * margin)
        batch |= {f"whole_{name}": to_signed(part) for name, part in whole.items()}
    return batch | {"step": step}


def run(config: Config, *, log: Callable[[str], None] = print) -> Trainer:
    """Train the last octave behind the finished core; write ``last_octave/`` to the folder.

    Raises:
        InvalidInputError: a crop that does not fit, or no face that is large enough.
    """
    accelerator = new_accelerator()
    objective = new_objective(config)
    octave: Any = objective.last_octave
    pipeline = working_pipeline(config.preset, config.output_dir, {})
    pipeline.to(accelerator.device)
    size = pipeline.face_size * FACTOR
    if config.crop % _GRID or not 0 < config.crop <= size:
        raise InvalidInputError(f"--crop is a multiple of {_GRID} up to {size}, not {config.crop}")
    if config.face_margin % _GRID or not 0 <= config.face_margin < size // 2:
        raise InvalidInputError(f"--face-margin is a multiple of {_GRID} below {size // 2}, not {config.face_margin}")
    faces = load_training_mix(config.data, size, min_side=config.min_side)

    def restore(lq: np.ndarray, first: int) -> np.ndarray:
        """What the core makes of degraded faces (B,S,S,3) uint8: (B,S/2,S/2,3) uint8."""
        images = core_view(to_signed(lq), octave).to(accelerator.device)
        generators = [torch.Generator().manual_seed(first + row) for row in range(len(lq))]
        made = torch.cat(
            [
                pipeline(images[row : row + 8], generator=generators[row : row + 8], output_type="pt").images
                for row in range(0, len(lq), 8)
            ]
        )
        return made.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()

    def prepare(first: int, last: int) -> tuple[int, np.ndarray, np.ndarray]:
        rng = np.random.default_rng([config.seed, first])
        drawn = faces.images(faces.draw(last - first, seed=config.seed, step=first))
        return first, *degraded_batch(drawn, config.degradation, rng)

    def compute(pair: tuple[int, np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
        first, lq, targets = pair
        return {"restored": restore(lq, first), "lq": lq, "targets": targets}

    modules = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    core = {name: parameter_hash(module) for name, module in modules.items()}
    stands_on = core if config.start_from is None else core | {"start": start_hash(config, octave)}
    identity = run_identity("octave", config, faces, stands_on)
    key = {"format": FORMAT, "seed": config.seed, "degradation": config.degradation, "data": identity["data"]}
    with main_process_first():
        cache = Path(config.output_dir) / "runs" / "octave_pairs"
        workers = config.num_workers
        pairs = cached_pairs(cache, config.pairs, prepare, compute, key=key | core, workers=workers, log=log)

    degradation, seed = config.degradation, config.seed
    lq, targets, _ = held_out_pairs(config.data, size, 8, degradation, seed, min_side=config.min_side)
    seen = [to_signed(each).to(accelerator.device) for each in (restore(lq, 0), lq, targets)]

    @torch.no_grad()
    def sample() -> Image.Image:
        restored, degraded, clean = seen
        large = enlarged(restored)
        made = torch.cat([octave(*pair) for pair in zip(restored.split(1), degraded.split(1), strict=True)])
        measures = {"l1": F.l1_loss}
        if objective.perceptual is not None:
            measures["lpips"] = objective.perceptual
        for name, measure in measures.items():
            ours, plain = (measure(each, clean).mean().item() for each in (made, large))
            log(f"validation {name} {ours:.4f}, enlarged alone {plain:.4f}")
        return grid([degraded, large, made, clean])

    def make_batch(step: int) -> dict[str, Any]:
        return batch_of(pairs, config, step)

    trainer = Trainer(
        objective, make_batch, config.loop("octave"), sample=sample, accelerator=accelerator, identity=identity
    )
    trainer.fit()

    def write(folder: Path) -> None:
        written = deepcopy(octave)
        written.register_to_config(coarse=config.coarse)
        written.save_pretrained(folder)

    trainer.export(config.output_dir, {"last_octave": write})
    return trainer
