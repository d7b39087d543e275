"""The language model at work: it writes the clean image's tokens, and its hidden states are the dense latent
queries.

Pref-Restore (arXiv 2601.19506) generates first and runs the whole sequence again for the hidden states; here
they are kept while decoding, which gives the same numbers in one pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import Cache, CacheLayerMixin

from prefrestore.errors import InvalidInputError
from prefrestore.semantic.instruction import ChatInputs, ImageVocabulary

if TYPE_CHECKING:
    from transformers import Qwen3Config, Qwen3ForCausalLM


class Written(NamedTuple):
    """tokens: (B,N) int64 codebook indices. queries: (B,N+1,D), final-norm hidden states at ``<S0>`` and at
    the N written tokens."""

    tokens: Tensor
    queries: Tensor


class TeacherForced(NamedTuple):
    """loss: scalar, mean cross-entropy in nats over the N tokens and ``<im_end>``. accuracy: scalar, share of
    the N tokens that come first within the image vocabulary. queries: (B,N+1,D) as in `Written`. image_loss:
    (B,N) cross-entropy of each image token."""

    loss: Tensor
    accuracy: Tensor
    queries: Tensor
    image_loss: Tensor


class _FixedLayer(CacheLayerMixin):
    """Keys and values of one layer in memory set aside once; a step writes its slice and reads what is
    written.

    transformers' growing cache copies everything at every step, and its static one attends over the empty
    part too.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length, self.used = length, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys = key_states.new_empty(*key_states.shape[:2], self.length, key_states.shape[3])
        self.values = value_states.new_empty(*value_states.shape[:2], self.length, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.used = self.used, self.used + key_states.shape[2]
        self.keys[:, :, start : self.used] = key_states
        self.values[:, :, start : self.used] = value_states
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.used + query_length, 0

    def get_seq_length(self) -> int:
        return self.used

    def get_max_length(self) -> int:
        return self.length


def _prompt_mask(mask: Tensor) -> Tensor | None:
    """Which keys each position sees: (B,1,L,L) bool, or None where plain causality says it all.

    Padding sees itself, so that no row of the softmax is empty.
    """
    if bool(mask.all()):
        return None
    length = mask.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=mask.device)
    return ((causal & mask[:, None, :]) | itself)[:, None]


def _check_length(model: Qwen3ForCausalLM, chat: ChatInputs, num_tokens: int) -> None:
    last = int(chat.positions.max()) + num_tokens + 1
    if last > model.config.max_position_embeddings:
        raise InvalidInputError(
            f"the chat and {num_tokens} image tokens reach position {last}; "
            f"the language model has {model.config.max_position_embeddings}"
        )


@torch.no_grad()
def write_tokens(model: Qwen3ForCausalLM, chat: ChatInputs, vocabulary: ImageVocabulary, num_tokens: int) -> Written:
    """Greedy decoding of exactly ``num_tokens`` image tokens, and the hidden states on the way.

    Only image tokens can be written: logits are computed for their rows of the head alone.

    Raises:
        InvalidInputError: the sequence does not fit the model's positions.
    """
    _check_length(model, chat, num_tokens)
    chat = chat.to(model.device)
    count, length = chat.input_ids.shape
    head = model.lm_head.weight[vocabulary.first : vocabulary.first + vocabulary.size]
    cache = Cache(layers=[_FixedLayer(length + num_tokens) for _ in range(model.config.num_hidden_layers)])
    seen: Tensor | None = None
    if (prompt_mask := _prompt_mask(chat.mask)) is not None:
        written = torch.ones(count, num_tokens, dtype=torch.bool, device=model.device)
        seen = torch.cat([chat.mask, written], dim=1)[:, None, None]

    def states(ids: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        # A mask that comes as a mapping is used as it is; otherwise transformers would build one at every
        # step.
        output = model.model(
            input_ids=ids,
            attention_mask={"full_attention": mask},
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        return output.last_hidden_state[:, -1]

    state = states(chat.input_ids, chat.positions, prompt_mask)
    queries, tokens = [state], []
    last = chat.positions[:, -1:]
    for step in range(1, num_tokens + 1):
        token = F.linear(state, head).argmax(-1, keepdim=True)
        mask = None if seen is None else seen[..., : length + step]
        state = states(token + vocabulary.first, last + step, mask)
        tokens.append(token)
        queries.append(state)
    return Written(torch.cat(tokens, dim=1), torch.stack(queries, dim=1))


def teacher_forced(
    model: Qwen3ForCausalLM, chat: ChatInputs, tokens: Tensor, vocabulary: ImageVocabulary
) -> TeacherForced:
    """One pass over the chat, the true tokens (B,N) and ``<im_end>``: next-token losses and hidden states.

    Raises:
        InvalidInputError: as `write_tokens`, or a token lies outside the codebook.
    """
    count, num_tokens = tokens.shape
    _check_length(model, chat, num_tokens)
    chat, tokens = chat.to(model.device), tokens.to(model.device)
    ids = vocabulary.to_ids(tokens)
    steps = torch.arange(1, num_tokens + 1, device=model.device)
    mask = torch.cat([chat.mask, torch.ones_like(ids, dtype=torch.bool)], dim=1)
    output = model.model(
        input_ids=torch.cat([chat.input_ids, ids], dim=1),
        attention_mask={"full_attention": _prompt_mask(mask)},
        position_ids=torch.cat([chat.positions, chat.positions[:, -1:] + steps], dim=1),
        use_cache=False,
    )
    queries = output.last_hidden_state[:, -num_tokens - 1 :]
    logits = model.lm_head(queries).float()
    targets = torch.cat([ids, ids.new_full((count, 1), vocabulary.end)], dim=1)
    losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    image_logits = logits[:, :-1, vocabulary.first : vocabulary.first + vocabulary.size]
    accuracy = (image_logits.argmax(-1) == tokens).float().mean()
    return TeacherForced(losses.mean(), accuracy, queries, losses[:, :-1])


def build_language_model(config: Qwen3Config, generator: torch.Generator) -> Qwen3ForCausalLM:
    """A new model whose weights come from ``generator`` alone.

    Normal with the configuration's ``initializer_range``; the layers that add to the residual stream are
    divided by sqrt(2 layers) (GPT-2's rule), so that depth does not raise its variance.
    """
    from transformers import Qwen3ForCausalLM

    model = Qwen3ForCausalLM(config)
    std, residual = config.initializer_range, (2 * config.num_hidden_layers) ** -0.5
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(1)  # Qwen3 has no biases here: every vector is the weight of a norm
                continue
            scale = residual if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
            parameter.normal_(0, std * scale, generator=generator)
    return model
