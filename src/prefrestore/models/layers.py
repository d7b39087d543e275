"""The tokenizer's building blocks, their seeded initialisation, and where they keep full precision."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Inside, nothing is cast to lower precision; on devices without autocast (torch's meta) nothing is anyway."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


class ResidualBlock(nn.Module):
    """Pre-activation residual block of two 3x3 convolutions; (B,C,H,W) -> the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        groups = math.gcd(width, 16)
        self.norm1 = nn.GroupNorm(groups, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        y = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(y)))


class TransformerBlock(nn.Module):
    """Pre-norm self-attention over all positions and a GELU MLP; (B,N,C) -> the same shape."""

    def __init__(self, width: int, heads: int, mlp_ratio: float = 3.0) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, int(mlp_ratio * width))
        self.mlp_out = nn.Linear(int(mlp_ratio * width), width)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.out(attended)
        return x + self.mlp_out(F.gelu(self.mlp_in(self.norm2(x)), approximate="tanh"))


@torch.no_grad()
def initialise_(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every weight of ``module`` from ``generator``: nothing depends on the global random state.

    Convolutions and linear layers: normal with variance 1/fan_in; biases 0; norms 1 and 0; embeddings and
    bare
    parameters: unit normal and normal(0, 0.02). The last layer of every residual branch starts at zero.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            fan_in = part.weight[0].numel()
            part.weight.normal_(0, fan_in**-0.5, generator=generator)
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, nn.GroupNorm | nn.LayerNorm):
            part.weight.fill_(1)
            part.bias.zero_()
        elif isinstance(part, nn.Embedding):
            part.weight.normal_(0, 1, generator=generator)
        for parameter in part.parameters(recurse=False):
            if not isinstance(part, nn.Conv2d | nn.Linear | nn.GroupNorm | nn.LayerNorm | nn.Embedding):
                parameter.normal_(0, 0.02, generator=generator)
    for part in module.modules():
        if isinstance(part, ResidualBlock):
            part.conv2.weight.zero_()
        elif isinstance(part, TransformerBlock):
            part.out.weight.zero_()
            part.mlp_out.weight.zero_()
