"""Steps 1 and 2 on the published classes: what is trained, the losses that compact stages have no use for, the export.

Pref-Restore (arXiv 2601.19506). Its own run does some things otherwise than is better; ``reference`` asks for them:

* the queries of training are the states of the last N+1 positions, which end with the chat's own closing tokens, while
  restoring takes those of ``<S0>`` and the N tokens; here both are the same, and step 2 learns from what the language
  model writes itself;
* step 1 zeroes the hidden states before the connector, step 2 the condition behind it; here both zero the condition,
  which is what guidance takes away;
* a copy task never carries a caption, and step 2 has copy tasks, too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.errors import InvalidInputError
from prefrestore.files.weights import write_hashes
from prefrestore.models.semantic.instruction import TURN_END, ImageVocabulary, build_chats
from prefrestore.models.semantic.integrator import teacher_forced
from prefrestore.models.texture import flow
from prefrestore.models.texture.conditioning import denoise, embed_latents
from prefrestore.pipeline.inputs import prepare_faces
from prefrestore.pipeline.presets import load_preset
from prefrestore.pipeline.published.components import is_published
from prefrestore.pipeline.published.saving import save_assembled, share_norm
from prefrestore.pipeline.published.start import start_pipeline, unread_tensors
from prefrestore.training.identity import parameter_hash

if TYPE_CHECKING:
    from prefrestore.pipeline.pipeline import PrefRestorePipeline

PIPELINE, ASSEMBLED = "pipeline", "assembled"
"""Under which names a trained model is written: as this package's folder, and in the published layout."""
DROPPED = 0.1
"""Share of the conditions that are zeroed, for classifier-free guidance."""


def begin(preset_name: str, model: Path, *, seed: int, captions: Sequence[str] = ()) -> PrefRestorePipeline:
    """`start_pipeline` of a preset by its name; InvalidInputError where it is not one of the published classes."""
    preset = load_preset(preset_name)
    if not is_published(preset):
        raise InvalidInputError(
            f"--model is for presets of the published classes: with '{preset_name}' the stages take from --output-dir "
            f"what the ones before have written"
        )
    return start_pipeline(model, preset, seed=seed, captions=captions)


def ask_for_model(preset_name: str, output_dir: Path) -> None:
    """Without ``--model``: InvalidInputError for a preset of the published classes whose parts are not all at hand."""
    if is_published(load_preset(preset_name)) and not (Path(output_dir) / "image_tokenizer").is_dir():
        raise InvalidInputError(
            f"the preset '{preset_name}' is trained from published weights: name their folder as --model "
            f"(docs/paper-scale.md)"
        )


def start_hashes(pipeline: PrefRestorePipeline, reference: bool) -> dict[str, str]:
    """What decides a run beside its settings and faces: the weights it starts from, and whose details it follows."""
    modules = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    hashes = {name: parameter_hash(part) for name, part in modules.items()}
    return hashes | ({"details": "reference"} if reference else {})


def closing_ids(text_tokenizer: Any) -> list[int]:
    """What ends the assistant's turn behind ``<im_end>`` in the chat's template."""
    return list(text_tokenizer(f"{TURN_END}\n", add_special_tokens=False)["input_ids"])


class QueryFlow(nn.Module):
    """Step 1's flow loss: through a frozen denoiser, under the queries alone; trains what carries them into it."""

    def __init__(self, pipeline: PrefRestorePipeline, *, reference: bool = False) -> None:
        super().__init__()
        self.transformer, self.connector = pipeline.transformer, pipeline.connectors.diffusion_connector
        self.autoencoder, self.reference = pipeline.autoencoder, reference
        self.connector.requires_grad_(True)
        self.transformer.caption_projection.requires_grad_(True)

    def forward(self, queries: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Queries (B,N+1,D), clean images (B,3,H,W) in [-1,1] -> ``mean((v - (e - x_0))^2)``, t uniform."""
        with torch.no_grad():
            clean = self.autoencoder.encode(targets).latent.float() * self.autoencoder.config.scaling_factor
        keep = _kept(len(clean), generator)
        if self.reference:
            condition = self.connector(queries * keep)
        else:
            condition = self.connector(queries) * keep
        return flow_loss(self.transformer, clean, condition, generator)


class TextureObjective(nn.Module):
    """Step 2: the denoiser's blocks, the LQ tokens' connector without its norm, and the encoder that sees LQ images.

    The loss is the flow's under the whole condition, plus ``mean((z_LQ - z_HQ)^2)``, which pulls the LQ latent towards
    the clean one; a frozen copy of the encoder gives that and the flow's targets.
    """

    def __init__(self, pipeline: PrefRestorePipeline) -> None:
        super().__init__()
        self.transformer, self.connectors = pipeline.transformer, pipeline.connectors
        self.encoder = pipeline.autoencoder.encoder
        self.scale = float(pipeline.autoencoder.config.scaling_factor)
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.encoder.requires_grad_(True)
        self.transformer.transformer_blocks.requires_grad_(True)
        for place in (0, 2):
            self.connectors.vae_connector[place].requires_grad_(True)

    def forward(self, lq: Tensor, targets: Tensor, queries: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """LQ and clean images (B,3,H,W) in [-1,1], the language model's states (B,N+1,D) -> losses."""
        lq_latents = self.encoder(lq).float() * self.scale
        with torch.no_grad():
            clean = self.target_encoder(targets).float() * self.scale
        pull = F.mse_loss(lq_latents, clean)
        condition = self.connectors(queries, embed_latents(self.transformer, lq_latents))
        condition = condition * _kept(len(clean), generator)
        loss = flow_loss(self.transformer, clean, condition, generator)
        return {"flow": loss, "latent": pull, "loss": loss + pull}


def flow_loss(transformer: Any, clean: Tensor, condition: Tensor, generator: torch.Generator) -> Tensor:
    """``mean((v - (e - x_0))^2)`` at uniform t, of scaled clean latents (B,C,h,w) under a condition (B,L,D)."""
    t = torch.rand(len(clean), generator=generator, device=clean.device)
    noise = torch.randn(clean.shape, generator=generator, device=clean.device)
    x_t = flow.interpolate(clean, noise, t)
    velocity = denoise(transformer, x_t, t, condition, x_t).float()
    return F.mse_loss(velocity, noise - clean)


def _kept(count: int, generator: torch.Generator) -> Tensor:
    """(B,1,1) of ones, and zeros for the `DROPPED` share."""
    drawn = torch.rand(count, 1, 1, generator=generator, device=generator.device)
    return (drawn >= DROPPED).float()


@torch.no_grad()
def queries_of(
    pipeline: PrefRestorePipeline, lq: Tensor, targets: Tensor, captions: Sequence[str | None], *, reference: bool
) -> Tensor:
    """What step 2 is told by the frozen language model: (B,N+1,D) for LQ images (B,3,H,W) in [-1,1].

    ``reference``: under the clean image's own tokens, the last positions; else what restoring would take.
    """
    if not reference:
        return pipeline.encode_semantics(lq, captions)
    side = pipeline.image_tokenizer.config.image_size
    given, tokens = (pipeline.image_tokenizer.encode(prepare_faces(images, side)) for images in (lq, targets))
    chats = build_chats(pipeline.text_tokenizer, given, captions, answer_position=pipeline.config.answer_position)
    vocabulary, closing = ImageVocabulary.of(pipeline.text_tokenizer), closing_ids(pipeline.text_tokenizer)
    return teacher_forced(pipeline.language_model, chats, tokens, vocabulary, closing).queries


def exports(pipeline: PrefRestorePipeline, model: Path, *, shares_norm: bool) -> Mapping[str, Callable[[Path], object]]:
    """What writes a trained model, by `PIPELINE` and `ASSEMBLED`.

    Args:
        model: what the run started from, for what only the published loader needs.
        shares_norm: whether the connectors' two norms are one.
    """
    unread = unread_tensors(model, pipeline.image_tokenizer)

    def own(folder: Path) -> None:
        if shares_norm:
            share_norm(pipeline.connectors)
        pipeline.save_pretrained(folder)
        write_hashes(folder)

    def published(folder: Path) -> None:
        if shares_norm:
            share_norm(pipeline.connectors)
        save_assembled(pipeline, folder, unread=unread)

    return {PIPELINE: own, ASSEMBLED: published}


def norms_are_one(pipeline: PrefRestorePipeline) -> bool:
    """Whether the connectors' norms are equal, as those of one shared module are."""
    connectors = pipeline.connectors
    return torch.equal(connectors.diffusion_connector[3].weight, connectors.vae_connector[3].weight)
