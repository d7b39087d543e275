"""SimVQ: the nearest row of a frozen random codebook that is seen through one trained linear layer.

Because every code moves when the linear layer moves, no code can be left behind, and the codebook does not
collapse (SimVQ, arXiv 2411.02038). As in TA-Tok (arXiv 2506.18898) both sides are compared after L2
normalisation, that is by cosine similarity.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prefrestore.models.layers import full_precision
from prefrestore.models.offload import at_work


class Quantized(NamedTuple):
    """What `SimVQ.forward` returns.

    codes: (B,N,C) unit vectors with the straight-through gradient. indices: (B,N) int64.
    commitment: scalar, squared distance between features and codes, both directions.
    entropy_gap: scalar in nats, ``log(size)`` less the entropy of the soft assignments' batch mean.
    """

    codes: Tensor
    indices: Tensor
    commitment: Tensor
    entropy_gap: Tensor


def perplexity(indices: Tensor, size: int) -> Tensor:
    """exp of the entropy of how often each of ``size`` codes occurs in ``indices`` (any shape, int64): 1 to
    size."""
    share = torch.bincount(indices.reshape(-1), minlength=size).float() / indices.numel()
    return torch.special.entr(share).sum().exp()


class SimVQ(nn.Module):
    """Frozen codebook (``embedding``), trained linear layer with bias (``embedding_proj``), cosine
    similarity.

    Args:
        codebook_size: number of codes.
        code_dim: dimension of a code.
        beta: weight of the half of the commitment that pulls the features to the codes.
        temperature: of the soft assignments whose batch mean should be even.
    """

    def __init__(self, codebook_size: int, code_dim: int, *, beta: float = 0.25, temperature: float = 0.05) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codebook_size, code_dim)
        self.embedding.weight.requires_grad_(False)
        self.embedding_proj = nn.Linear(code_dim, code_dim)
        self.beta = beta
        self.temperature = temperature

    def codebook(self) -> Tensor:
        """The codes that are compared: unit rows of ``embedding_proj(embedding)``, (size, C) float32."""
        with at_work(self.embedding), full_precision(self.embedding.weight.device):
            return F.normalize(self.embedding_proj(self.embedding.weight).float(), dim=-1)

    def nearest(self, features: Tensor) -> Tensor:
        """Features (B,N,C), of any length -> indices (B,N) int64 of the codes with the highest cosine."""
        with full_precision(features.device):
            # The length of a feature does not change which code is nearest, so only the codes are normalised.
            return (features.float() @ self.codebook().T).argmax(-1)

    def forward(self, features: Tensor) -> Quantized:
        """Features (B,N,C) -> codes with a straight-through gradient, indices, losses."""
        with full_precision(features.device):
            codebook = self.codebook()
            unit = F.normalize(features.float(), dim=-1)
            similarity = unit @ codebook.T
            indices = similarity.argmax(-1)
            codes = F.embedding(indices, codebook)
            # The two terms of VQ-VAE (arXiv 1711.00937, eq. 3), summed over the code's dimensions.
            to_codes = (unit - codes.detach()).square().sum(-1).mean()
            to_features = (unit.detach() - codes).square().sum(-1).mean()
            assignment = (similarity / self.temperature).softmax(-1).flatten(0, -2).mean(0)
            entropy = torch.special.entr(assignment).sum()
            gap = torch.log(torch.tensor(float(len(codebook)), device=entropy.device)) - entropy
            return Quantized(
                codes=unit + (codes - unit).detach(),
                indices=indices,
                commitment=to_features + self.beta * to_codes,
                entropy_gap=gap,
            )
