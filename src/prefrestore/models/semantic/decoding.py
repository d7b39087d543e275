"""The clean image's tokens, one after another or from a draft: greedy either way; and the hidden states on the way.

Pref-Restore (arXiv 2601.19506) generates first and runs the whole sequence again for the hidden states; here they are
kept while decoding, which gives the same numbers without the second pass. The image to restore is itself a draft of
the clean one: its tokens are offered position by position, a block is read in one forward pass, and the longest
beginning that the model agrees with is kept, as in speculative decoding (arXiv 2211.17192). What the model said behind
the first disagreement is the next draft, as in Jacobi decoding (arXiv 2305.10427). Where that does not pay (`Account`),
the draft is taken as it was given; where that does not pay either, it is given up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from prefrestore.errors import InvalidInputError
from prefrestore.models.offload import compute_device, weight_rows
from prefrestore.models.semantic.account import Account
from prefrestore.models.semantic.cache import FixedCache
from prefrestore.models.semantic.instruction import ChatInputs, ImageVocabulary
from prefrestore.models.semantic.token_sampling import TokenSampling

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM

# Draft tokens in the first pass, in any pass, and at least. A pass costs more the more it reads; but it also betters
# the draft behind a wrong token, so short blocks do not pay even where the draft is mostly wrong.
FIRST_DRAFT, LONGEST_DRAFT, SHORTEST_DRAFT = 64, 256, 32

# Two logits closer than this share of the larger one could change places when the same sums are taken in another order:
# ten times what that was seen to change.
TIE = 5e-6


class Written(NamedTuple):
    """What the language model wrote.

    tokens: (B,N) int64 codebook indices. queries: (B,N+1,D), final-norm hidden states at ``<S0>`` and at the N
    written tokens. passes: (B,) int64, forward passes of the language model that each row took part in.
    """

    tokens: Tensor
    queries: Tensor
    passes: Tensor


def visible(slots: Tensor, known: Tensor) -> Tensor:
    """Which keys each query sees: (B,1,T,K) bool.

    A query at a slot (B,T) sees the keys up to its own that are no padding (``known``, (B,K) bool). Padding sees
    itself, so that no row of the softmax is empty.
    """
    keys = torch.arange(known.shape[1], device=slots.device)
    past, itself = keys <= slots[..., None], keys == slots[..., None]
    return ((past & known[:, None]) | itself)[:, None]


def check_length(model: Qwen3ForCausalLM, chat: ChatInputs, num_tokens: int) -> None:
    """InvalidInputError where the chat and ``num_tokens`` image tokens do not fit the model's positions."""
    last = int(chat.positions.max()) + num_tokens + 1
    if last > model.config.max_position_embeddings:
        raise InvalidInputError(
            f"the chat and {num_tokens} image tokens reach position {last}; "
            f"the language model has {model.config.max_position_embeddings}"
        )


@torch.no_grad()
def write_tokens(
    model: Qwen3ForCausalLM,
    chat: ChatInputs,
    vocabulary: ImageVocabulary,
    num_tokens: int,
    *,
    draft: Tensor | None = None,
    constrained: bool = True,
    sampling: TokenSampling | None = None,
) -> Written:
    """Decoding of exactly ``num_tokens`` image tokens, greedy if ``sampling`` is None; the hidden states on the way.

    Every greedy token is the argmax of the logits after the tokens before it, with a draft as without; a draft only
    changes how many of them one forward pass settles, at least one. A pass over a block takes its sums in another order
    than a pass over one token, or over a batch, so logits that all but tie (`TIE`) could be ranked otherwise. In
    float32 a row with such a tie is decoded again alone and without a draft: the tokens are those of greedy decoding
    one face and one token at a time. In half precision near ties are too frequent for that: there the tokens are greedy
    to within the rounding, as they are between two batch sizes.

    Args:
        draft: a guess of the tokens, (B,N) codebook indices: the LQ image's own. None settles one token a pass, and so
            do sampled tokens.
        constrained: only image tokens can be written, and logits are computed for their rows of the head alone.
            Otherwise any token of the vocabulary, as in the reference; its index is then counted from the first image
            token and may lie outside the codebook. Nothing stops before ``num_tokens``.
        sampling: draws the tokens.

    Raises:
        InvalidInputError: the sequence does not fit the model's positions, or the draft not the batch or the codebook.
    """
    check_length(model, chat, num_tokens)
    device = compute_device(model)
    chat = chat.to(device)
    if draft is None or sampling is not None:
        return _decode(model, chat, vocabulary, num_tokens, None, constrained, sampling)[0]
    if draft.shape != (len(chat.input_ids), num_tokens):
        raise InvalidInputError(
            f"the draft is {tuple(draft.shape)}; the batch wants {(len(chat.input_ids), num_tokens)}"
        )
    drafted, tied = _decode(model, chat, vocabulary, num_tokens, draft.to(device), constrained)
    for row in tied.nonzero()[:, 0].tolist():
        alone, _ = _decode(model, _alone(chat, row), vocabulary, num_tokens, None, constrained)
        drafted.tokens[row], drafted.queries[row] = alone.tokens[0], alone.queries[0]
        drafted.passes[row] += alone.passes[0]
    return drafted


def _alone(chat: ChatInputs, row: int) -> ChatInputs:
    """One chat of the batch without its padding."""
    own = chat.mask[row]
    return ChatInputs(chat.input_ids[row, own][None], chat.mask[row, own][None], chat.positions[row, own][None])


def _decode(
    model: Qwen3ForCausalLM,
    chat: ChatInputs,
    vocabulary: ImageVocabulary,
    num_tokens: int,
    draft: Tensor | None,
    constrained: bool,
    sampling: TokenSampling | None = None,
) -> tuple[Written, Tensor]:
    """What was written, and which rows (B,) have a token whose logit all but ties with another.

    Index i of a row counts from ``<S0>``, 0; token i lies at slot ``length - 1 + i`` of the cache. ``start`` is the
    first index that no pass has read with the right tokens before it: its token is known, what follows is a guess.
    """
    device, (count, length) = chat.input_ids.device, chat.input_ids.shape
    rows_of_head = slice(vocabulary.first, vocabulary.first + vocabulary.size) if constrained else slice(None)
    head, offset = weight_rows(model.lm_head, rows_of_head), vocabulary.first if constrained else 0
    longest = 0 if draft is None else min(LONGEST_DRAFT, num_tokens)
    width = min(FIRST_DRAFT, longest)
    # Rows do not advance alike: one that is ahead reads up to ``longest`` places beyond its end.
    size = num_tokens + longest
    guess = chat.input_ids[:, -1:].repeat(1, size + 2)
    if draft is not None:
        guess[:, 1 : num_tokens + 1] = vocabulary.to_ids(draft)
    known = torch.cat([chat.mask, torch.ones(count, size, dtype=torch.bool, device=device)], dim=1)
    padded = not bool(chat.mask.all())
    cache = FixedCache(model.config.num_hidden_layers, length + size)
    queries = torch.empty(count, size + 1, model.config.hidden_size, dtype=model.dtype, device=device)
    passes = torch.zeros(count, dtype=torch.long, device=device)
    guarded = draft is not None and model.dtype in (torch.float32, torch.float64)
    tied = torch.zeros(count, dtype=torch.bool, device=device)

    given, places, mended, account = guess.clone(), torch.arange(size + 2, device=device), True, Account()
    alive, start, before = torch.arange(count, device=device), [0] * count, length - 1
    while start:
        fed = 1 + min(width, num_tokens - min(start))
        index = torch.tensor(start, device=device)[:, None] + torch.arange(fed, device=device)
        row = alive[:, None]
        ids, positions = guess[row, index], chat.positions[alive, -1:] + index
        slots = length - 1 + index
        if before:  # the first pass reads the prompt, too
            ids = torch.cat([chat.input_ids[:, :-1], ids], dim=1)
            positions = torch.cat([chat.positions[:, :-1], positions], dim=1)
            slots = torch.cat([torch.arange(before, device=device).expand(count, -1), slots], dim=1)
        used = length + max(start) + fed - 1
        aligned = min(start) == max(start)
        # Without padding plain causality says it all for the first pass, and a single token sees everything.
        plain = not padded and aligned and (before or fed == 1)
        mask = None if plain else visible(slots, known[alive, :used])
        cache.place(used, None if aligned else slots)
        # A mask that comes as a mapping is used as it is; otherwise transformers would build one at every pass.
        output = model.model(
            input_ids=ids,
            attention_mask={"full_attention": mask},
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        states = output.last_hidden_state[:, before:]
        logits = F.linear(states, head)
        best, choice = logits.max(-1)
        if sampling is not None:
            choice = sampling.draw(logits[:, -1], alive.tolist())[:, None]
        choice = choice + offset
        queries[row, index] = states
        passes[alive] += 1
        agreed = (guess[row, index[:, 1:]] == choice[:, :-1]).cumprod(1).sum(1)
        guess[row, index + 1] = choice  # what is agreed on stays, one more is certain, the rest is the next draft
        if guarded:
            near = (logits > (best - TIE * best.abs())[..., None]).sum(-1) > 1
            certain = (torch.arange(fed, device=device) <= agreed[:, None]) & (index < num_tokens)
            tied[alive] |= (near & certain).any(1)
        runs = agreed.tolist() if fed > 1 else [0] * len(start)
        start = [at + run + 1 for at, run in zip(start, runs, strict=True)]
        if width:
            account.book(fed, [run + 1 for run in runs])
        if mended and not account.pays:  # what the model said behind wrong tokens did not better the draft
            mended, account = False, Account()
        if width and not mended:
            behind = places > torch.tensor(start, device=device)[:, None]
            guess[alive] = given[alive].where(behind, guess[alive])
        # Given up, the draft stays so: a row costs one pass a token from here on.
        width = min(longest, max(SHORTEST_DRAFT, 2 * max(runs))) if width and account.pays else 0
        going = [at <= num_tokens for at in start]
        if not all(going):
            keep = torch.tensor(going, device=device).nonzero()[:, 0]
            alive, start = alive[keep], [at for at in start if at <= num_tokens]
            cache.keep(keep)
        before = 0
    tokens = guess[:, 1 : num_tokens + 1] - vocabulary.first
    return Written(tokens, queries[:, : num_tokens + 1], passes), tied
