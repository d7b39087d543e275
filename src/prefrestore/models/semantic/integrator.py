"""The language model under teacher forcing, and a new one; `prefrestore.models.semantic.decoding` lets it write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from prefrestore.models.semantic.decoding import Written, check_length, visible, write_tokens
from prefrestore.models.semantic.instruction import ChatInputs, ImageVocabulary

if TYPE_CHECKING:
    from transformers import Qwen3Config, Qwen3ForCausalLM

__all__ = [
    "TeacherForced",
    "Written",
    "build_language_model",
    "initialise_language_model",
    "teacher_forced",
    "write_tokens",
]


class TeacherForced(NamedTuple):
    """What a language model makes of true tokens.

    loss: scalar, mean cross-entropy in nats over the N tokens and ``<im_end>``, weighted where weights are given.
    accuracy: scalar, share of the N tokens that come first within the image vocabulary. queries: (B,N+1,D) as in
    `Written`. image_loss: (B,N) cross-entropy of each image token.
    """

    loss: Tensor
    accuracy: Tensor
    queries: Tensor
    image_loss: Tensor


def teacher_forced(
    model: Qwen3ForCausalLM,
    chat: ChatInputs,
    tokens: Tensor,
    vocabulary: ImageVocabulary,
    closing: Sequence[int] = (),
    weights: Tensor | None = None,
    shown: Tensor | None = None,
) -> TeacherForced:
    """One pass over the chat, the true tokens (B,N) and ``<im_end>``: next-token losses and hidden states.

    Args:
        weights: how much the loss of each of the N tokens counts beside the 1 of what ends the turn, (B,N); None is 1.
        shown: what the model reads in the tokens' place, (B,N): wrong ones teach it to write on behind its own faults.
        closing: ids of what ends the assistant's turn behind ``<im_end>``. The model then reads and is asked for it,
            too, and the queries are the states of the *last* N+1 positions, as in Pref-Restore's own training.

    Raises:
        InvalidInputError: as `write_tokens`, or a token lies outside the codebook.
    """
    count, num_tokens = tokens.shape
    check_length(model, chat, num_tokens)
    chat, tokens = chat.to(model.device), tokens.to(model.device)
    end = tokens.new_tensor([vocabulary.end, *closing]).expand(count, -1)
    targets = torch.cat([vocabulary.to_ids(tokens), end], dim=1)
    ids = vocabulary.to_ids(tokens if shown is None else shown.to(tokens))
    if closing:
        ids = torch.cat([ids, end], dim=1)
    steps = torch.arange(1, ids.shape[1] + 1, device=model.device)
    mask = torch.cat([chat.mask, torch.ones_like(ids, dtype=torch.bool)], dim=1)
    slots = torch.arange(mask.shape[1], device=model.device).expand(count, -1)
    output = model.model(
        input_ids=torch.cat([chat.input_ids, ids], dim=1),
        # None is plain causality.
        attention_mask={"full_attention": None if bool(mask.all()) else visible(slots, mask)},
        position_ids=torch.cat([chat.positions, chat.positions[:, -1:] + steps], dim=1),
        use_cache=False,
    )
    states, start = output.last_hidden_state, mask.shape[1] - ids.shape[1] - 1  # of <S0>
    queries = states[:, -num_tokens - 1 :]
    logits = model.lm_head(states[:, start : start + targets.shape[1]]).float()
    losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    image_logits = logits[:, :num_tokens, vocabulary.first : vocabulary.first + vocabulary.size]
    accuracy = (image_logits.argmax(-1) == tokens).float().mean()
    counted = torch.ones_like(losses)
    if weights is not None:
        counted[:, :num_tokens] = weights.to(counted)
    return TeacherForced((losses * counted).sum() / counted.sum(), accuracy, queries, losses[:, :num_tokens])


def build_language_model(config: Qwen3Config, generator: torch.Generator) -> Qwen3ForCausalLM:
    """A new model whose weights come from ``generator`` alone, see `initialise_language_model`."""
    from transformers import Qwen3ForCausalLM

    model = Qwen3ForCausalLM(config)
    initialise_language_model(model, generator)
    return model


@torch.no_grad()
def tell_codes_alike(
    model: Qwen3ForCausalLM, codebook: Tensor, vocabulary: ImageVocabulary, generator: torch.Generator, own: float = 0.5
) -> None:
    """Give the image tokens embeddings that are alike where their codes are: the codes, turned into the model's width.

    A small model would spend most of its training on finding out which of thousands of tokens mean nearly the same.

    Args:
        codebook: (size, C) unit vectors, C at most the width.
        own: length of what each keeps of its random embedding, beside the shared part's 1, so that twins can be told
            apart.
    """
    tables = (model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    for embedding in {id(table): table for table in tables}.values():
        rows = embedding[vocabulary.first : vocabulary.first + vocabulary.size]
        length = rows.norm(dim=1, keepdim=True).mean()
        turned = torch.empty(rows.shape[1], codebook.shape[1])
        torch.nn.init.orthogonal_(turned, generator=generator)
        shared = codebook.float().cpu() @ turned.T * length
        rows.copy_((shared.to(rows) + own * rows) / (1 + own**2) ** 0.5)


@torch.no_grad()
def initialise_language_model(model: Qwen3ForCausalLM, generator: torch.Generator) -> None:
    """Draw all weights anew from ``generator``.

    Normal with the configuration's ``initializer_range``; the layers that add to the residual stream are
    divided by sqrt(2 layers) (GPT-2's rule), so that depth does not raise its variance.
    """
    std, residual = model.config.initializer_range, (2 * model.config.num_hidden_layers) ** -0.5
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            parameter.fill_(1)  # Qwen3 has no biases here: every vector is the weight of a norm
            continue
        scale = residual if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
        parameter.normal_(0, std * scale, generator=generator)
