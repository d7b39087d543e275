"""Step 2, first half: the LQ encoder learns the clean latent, and what a recogniser and an eye see in its picture.

The autoencoder is frozen, so the latents of many seeded pairs are computed once. A part of each batch is decoded for
LPIPS and for likeness: the mean of all faces that fit, which the latent error alone leads to, is like none of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.files.fingerprints import file_hash
from prefrestore.metrics.lpips import random_view
from prefrestore.training.components import component_folder
from prefrestore.training.encoder_pairs import EncoderPairs, finished_branch
from prefrestore.training.identity import parameter_hash, run_identity, start_hash
from prefrestore.training.images import grid, to_signed
from prefrestore.training.loop import Trainer
from prefrestore.training.pairs import held_out_pairs, load_training_faces
from prefrestore.training.processes import new_accelerator
from prefrestore.training.semantic_objective import SemanticObjective
from prefrestore.training.stage import StageConfig

if TYPE_CHECKING:
    from prefrestore.models.semantic.queries import SemanticBranch
    from prefrestore.training.attribute_loss import AttributeLoss
    from prefrestore.training.likeness import LikenessLoss

Extended = TypeVar("Extended", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Config(StageConfig):
    """The encoder's half of ``prefrestore train fidelity``.

    Args:
        data: folders of aligned faces (or the layout of the project's data card).
        output_dir: the working folder; ``autoencoder/`` is read from it, ``lq_encoder/`` written to it.
        preset: names the architecture.
        degradation: a preset of `prefrestore.degrade`.
        pairs: how many degraded pairs are cached; each is seen ``steps * batch_size / pairs`` times.
        perceptual_weight, identity_weight, features_weight: of LPIPS and of `prefrestore.training.likeness` on decoded
            estimates, behind the input skip; all 0 decodes nothing and trains no skip.
        decoded_share: share of each batch that is decoded for them.
        decoded_margin: latents at each side that are left out there.
        query_dropout: share of samples whose queries are zeros, for an encoder that takes queries, so that it need not
            have them.
        true_share: share of samples whose queries are of the true clean tokens in place of the written ones, so that
            the branch is worth listening to.
        attribute_reader: what ``tools/attributes.py fit`` wrote; with it, decoded estimates are asked for the true
            face's attributes (`prefrestore.training.attribute_loss`).
        attribute_weight: the weight of that.
        severe_first: a pair is drawn by this power of the squared distance of its two latents; 0 draws all alike.
        language_weight: weight of the language model's cross-entropy; above 0 it is trained together with an encoder
            that takes queries, whose losses reach it through them, as the flow's do in the paper's step 1. It then
            reads the degraded image's tokens where it would read its own, which are nearly the same.
        start_from: a working folder whose ``lq_encoder/`` (and ``input_skip/``) give the first weights; what the preset
            has beyond them starts as new.
    """

    degradation: str = "training"
    pairs: int = 12288
    steps: int = 2400
    batch_size: int = 16
    learning_rate: float = 6e-4
    perceptual_weight: float = 0.5
    identity_weight: float = 1.0
    features_weight: float = 2.0
    decoded_share: float = 0.5
    decoded_margin: int = 3
    query_dropout: float = 0.2
    true_share: float = 0.2
    attribute_reader: Path | None = None
    attribute_weight: float = 0.1
    severe_first: float = 0.0
    language_weight: float = 0.0
    start_from: Path | None = None

    @property
    def decodes(self) -> bool:
        """Whether any loss looks at pictures."""
        return max(self.perceptual_weight, self.identity_weight, self.features_weight) > 0


class EncoderObjective(nn.Module):
    """``mean((z_LQ - z_HQ)^2)`` (Pref-Restore, arXiv 2601.19506, step 2), plus losses on what some of z_LQ decode to.

    Args:
        autoencoder: frozen; decodes.
        input_skip: trained with the encoder.
        perceptual: LPIPS, or None. likeness: see there, or None.
        language: the branch that is trained with the encoder, or None. attributes: see there, or None.
    """

    def __init__(
        self,
        lq_encoder: Any,
        config: Config,
        *,
        autoencoder: Any = None,
        input_skip: Any = None,
        perceptual: nn.Module | None = None,
        likeness: LikenessLoss | None = None,
        language: SemanticObjective | None = None,
        attributes: AttributeLoss | None = None,
    ) -> None:
        super().__init__()
        self.language, self.attributes = language, attributes
        self.lq_encoder, self.config, self.autoencoder = lq_encoder, config, autoencoder
        self.input_skip, self.perceptual, self.likeness = input_skip, perceptual, likeness

    def forward(
        self,
        lq_latents: Tensor,
        clean_latents: Tensor,
        images: Tensor,
        targets: Tensor,
        generator: torch.Generator,
        queries: Tensor | None = None,
        given: Tensor | None = None,
        tokens: Tensor | None = None,
        captions: Sequence[str | None] = (),
    ) -> dict[str, Tensor]:
        """The autoencoder's latents (B,C,h,w) of LQ and clean images (B,3,H,W) in [-1,1], and those -> losses.

        For an encoder that takes them either the ``queries`` (B,Q,D) of the semantic branch, or what it makes them of
        where it is trained, too: the tokens (B,N) of the degraded and of the clean images, and captions.
        """
        losses: dict[str, Tensor] = {}
        if self.language is not None and given is not None and tokens is not None:
            chance = torch.rand(len(tokens), 1, generator=generator, device=tokens.device)
            shown = torch.where(chance < self.config.true_share, tokens, given)
            said = self.language.on_tokens(given, tokens, captions, shown=shown)
            losses = {"cross_entropy": said.loss, "accuracy": said.accuracy}
            queries = said.queries * (chance < 1 - self.config.query_dropout)[..., None]
        estimates = self.lq_encoder.encode(lq_latents, images, queries).float()
        losses["latent"] = F.mse_loss(estimates, clean_latents)
        total = losses["latent"]
        if self.language is not None:
            total = total + self.config.language_weight * losses["cross_entropy"]
        if self.autoencoder is not None:
            count, margin = math.ceil(len(images) * self.config.decoded_share), self.config.decoded_margin
            inner = slice(margin, estimates.shape[-1] - margin)
            margin *= images.shape[-1] // estimates.shape[-1]
            seen = slice(margin, images.shape[-1] - margin)
            truth, latents = targets[:count, :, seen, seen], estimates[:count, :, inner, inner]
            made = self.autoencoder.decode(latents / self.autoencoder.config.scaling_factor).sample.float()
            if self.input_skip is not None:
                made = self.input_skip(made, images[:count, :, seen, seen])
            if self.perceptual is not None:
                losses["lpips"] = self.perceptual(*random_view(made, truth, generator)).mean()
                total = total + self.config.perceptual_weight * losses["lpips"]
            if self.attributes is not None:
                whole = targets[:count].clone()  # the rim that is not decoded is the true one
                whole[:, :, seen, seen] = made.to(whole)
                losses["attributes"] = self.attributes(whole, self.attributes.truth(targets[:count]))
                total = total + self.config.attribute_weight * losses["attributes"]
            if self.likeness is not None:
                with torch.autocast(made.device.type, enabled=False):
                    losses |= self.likeness(made.float(), truth, generator, margin=margin)
                total = total + self.config.identity_weight * losses["identity"]
                total = total + self.config.features_weight * losses["features"]
        return losses | {"loss": total}


def first_weights(module: Extended, folder: Path) -> Extended:
    """Fill a module from the component in ``folder``; parts that the component does not have stay as they are new.

    Raises:
        WeightsError: the component has other parts, or parts of other shapes.
    """
    held = load_file(folder / "diffusion_pytorch_model.safetensors")
    own = module.state_dict()
    strange = [name for name, value in held.items() if name not in own or own[name].shape != value.shape]
    if strange:
        raise WeightsError(f"{folder}: {strange[0]} (and {len(strange) - 1} more) has no place in this preset")
    module.load_state_dict(held, strict=False)
    return module


def new_objective(config: Config, autoencoder: Any, branch: SemanticBranch | None = None) -> EncoderObjective:
    """The LQ encoder of the preset, new or continued, and the networks that its losses ask for.

    Args:
        branch: to train with it, or None.
    """
    from prefrestore.pipeline.components import build_components
    from prefrestore.pipeline.presets import load_preset

    names = ("lq_encoder", "input_skip") if config.decodes else ("lq_encoder",)
    parts = build_components(load_preset(config.preset), dict.fromkeys(names, "new"), trained=names, seed=config.seed)
    if config.start_from is not None:
        first_weights(parts["lq_encoder"], component_folder(config.start_from, "lq_encoder"))
        if "input_skip" in parts and (Path(config.start_from) / "input_skip").is_dir():
            first_weights(parts["input_skip"], Path(config.start_from) / "input_skip")
    networks: dict[str, Any] = {}
    if branch is not None:
        branch.language_model.train().requires_grad_(True)
        networks["language"] = SemanticObjective(**vars(branch))
    if not config.decodes:
        return EncoderObjective(parts["lq_encoder"], config, **networks)
    if config.perceptual_weight > 0:
        from prefrestore.metrics.lpips import LPIPS

        networks["perceptual"] = LPIPS("alex").requires_grad_(False)
    if config.identity_weight > 0 or config.features_weight > 0:
        from prefrestore.metrics.sface import SFaceNetwork
        from prefrestore.training.likeness import LikenessLoss

        networks["likeness"] = LikenessLoss(SFaceNetwork())
    if config.attribute_reader is not None:
        from prefrestore.metrics.attributes import AttributeReader
        from prefrestore.training.attribute_loss import AttributeLoss

        networks["attributes"] = AttributeLoss(AttributeReader.load(config.attribute_reader))
    return EncoderObjective(**parts, config=config, autoencoder=autoencoder, **networks)


def run(config: Config, *, log: Callable[[str], None] = print) -> Trainer:
    """Train the LQ encoder behind the finished autoencoder; write ``lq_encoder`` and ``input_skip`` to the folder."""
    from prefrestore.pipeline.components import build_component
    from prefrestore.pipeline.presets import load_preset

    preset = load_preset(config.preset)
    preset.component("lq_encoder")  # a preset without one is refused before anything else is asked for
    accelerator = new_accelerator()
    device = accelerator.device
    folder = component_folder(config.output_dir, "autoencoder")
    autoencoder = build_component(preset, "autoencoder", folder).to(device)
    wanted = preset.component("lq_encoder").arguments.get("query_features", 0) > 0
    branch = finished_branch(preset, config.output_dir, device) if wanted else None
    if config.language_weight > 0 and branch is None:
        raise InvalidInputError("--language-weight is for presets whose LQ encoder takes the language model's queries")
    objective = new_objective(config, autoencoder, branch if config.language_weight > 0 else None)
    lq_encoder, input_skip = objective.lq_encoder, objective.input_skip
    faces = load_training_faces(config.data, preset.face_size)
    pairs = EncoderPairs(config, faces, autoencoder, device, branch)

    # The decoder counts where estimates are decoded; a first weight counts where another run made it.
    stands_on = {"autoencoder": parameter_hash(autoencoder, skip=None if config.decodes else "decoder")}
    stands_on |= pairs.hashes()
    if objective.language is not None:
        # Its own run writes over it: a hash would refuse the same command the second time.
        stands_on["language_start"] = "of the folder itself"
    if config.attribute_reader is not None:
        stands_on["attribute_reader"] = file_hash(config.attribute_reader)
    if config.start_from is not None:
        stands_on["start"] = start_hash(config, lq_encoder, *([] if input_skip is None else [input_skip]))
    identity = run_identity("encoder", config, faces, stands_on)
    pairs.fill(identity["data"], log)
    lq, targets, captions = held_out_pairs(config.data, preset.face_size, 32, config.degradation, config.seed)
    clean, given, told = pairs.latents(targets), pairs.latents(lq), list(captions)

    @torch.no_grad()
    def sample() -> Image.Image:
        images = to_signed(lq).to(device)

        def means(said: Tensor | None) -> Tensor:
            parts = [slice(k, k + 8) for k in range(0, len(lq), 8)]
            return torch.cat([lq_encoder.encode(given[p], images[p], None if said is None else said[p]) for p in parts])

        queries = pairs.written(lq, told)
        found = means(queries)
        log(f"validation latent error {F.mse_loss(found, clean).item():.4f}")
        if queries is not None:
            asked = {"without queries": queries * 0, "without captions": pairs.written(lq, [None] * len(told))}
            for title, said in asked.items():
                log(f"validation latent error {title} {F.mse_loss(means(said), clean).item():.4f}")
        decoded = autoencoder.decode(found[:8] / autoencoder.config.scaling_factor).sample
        if input_skip is not None:
            decoded = input_skip(decoded, images[:8])
        return grid([to_signed(lq[:8]), decoded, to_signed(targets[:8])])

    trainer = Trainer(
        objective, pairs.batch, config.loop("encoder"), sample=sample, accelerator=accelerator, identity=identity
    )
    trainer.fit()
    parts = {"lq_encoder": lq_encoder.save_pretrained}
    if input_skip is not None:
        parts["input_skip"] = input_skip.save_pretrained
    if objective.language is not None:
        parts["language_model"] = objective.language.language_model.save_pretrained
    trainer.export(config.output_dir, parts, over=("semantic",))
    return trainer
