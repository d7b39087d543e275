"""TA-Tok (arXiv 2506.18898): an image as tokens of a codebook that is aligned with a language model's vocabulary.

Only what tokenizing needs: a SigLIP2 vision encoder up to an inner layer, a projection to the code's dimension, and
the nearest code of a SimVQ codebook (arXiv 2411.02038). Names of layers are the published file's.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SiglipVisionConfig, SiglipVisionModel

from prefrestore.errors import InvalidInputError
from prefrestore.models.offload import at_work


class SimVQCodebook(nn.Module):
    """Codes that are seen through a linear layer: ``embedding_proj(embedding)``.

    Args:
        codebook_size, code_dim: number of codes and their dimension.
        l2_normalized: compare by cosine; otherwise by Euclidean distance.
    """

    def __init__(self, codebook_size: int, code_dim: int, l2_normalized: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codebook_size, code_dim)
        self.embedding_proj = nn.Linear(code_dim, code_dim)
        self.l2_normalized = l2_normalized

    def nearest(self, features: Tensor, chunk: int = 8192) -> Tensor:
        """Features (...,C) -> indices (...) int64 of the nearest codes, in float32, ``chunk`` codes at a time.

        Between equally near codes the first is taken.
        """
        flat = features.flatten(0, -2).float()
        best = flat.new_full((len(flat),), -torch.inf)
        indices = torch.zeros(len(flat), dtype=torch.long, device=flat.device)
        with at_work(self.embedding), at_work(self.embedding_proj):
            table = self.embedding.weight
            weight, bias = self.embedding_proj.weight.float(), self.embedding_proj.bias.float()
        if self.l2_normalized:
            flat = F.normalize(flat, dim=-1)
        for start in range(0, len(table), chunk):
            codes = F.linear(table[start : start + chunk].float(), weight, bias)
            if self.l2_normalized:
                nearness = flat @ F.normalize(codes, dim=-1).T
            else:
                # -|f - c|^2 without the term |f|^2, which is the same for all codes.
                nearness = 2 * flat @ codes.T - codes.square().sum(-1)
            here, index = nearness.max(-1)
            nearer = here > best
            best = torch.where(nearer, here, best)
            indices = torch.where(nearer, index + start, indices)
        return indices.unflatten(0, features.shape[:-1])


class Bottleneck(nn.Module):
    """Encoder width -> code dimension, and the codebook."""

    def __init__(self, width: int, codebook_size: int, code_dim: int, l2_normalized: bool) -> None:
        super().__init__()
        self.in_linear = nn.Linear(width, code_dim)
        self.regularizer = SimVQCodebook(codebook_size, code_dim, l2_normalized)


class TATok(ModelMixin, ConfigMixin):
    """Image (B,3,S,S) in [-1,1] -> (B,N) indices, row by row; the defaults are SigLIP2-so400m-patch14-384's.

    Args:
        code_dim, codebook_size, l2_normalized: see `SimVQCodebook`.
        image_size, patch_size: pixels; the grid has ``image_size // patch_size`` positions a side.
        hidden_size, intermediate_size, num_hidden_layers, num_attention_heads: of the vision encoder.
        select_layer: which of its hidden states is read; layers behind it are not built.
    """

    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        code_dim: int,
        image_size: int = 384,
        patch_size: int = 14,
        hidden_size: int = 1152,
        intermediate_size: int = 4304,
        num_hidden_layers: int = 27,
        num_attention_heads: int = 16,
        select_layer: int = -2,
        codebook_size: int = 65536,
        l2_normalized: bool = True,
    ) -> None:
        super().__init__()
        if not -num_hidden_layers <= select_layer <= -1:
            raise InvalidInputError(f"select_layer counts from the end, -1 to {-num_hidden_layers}, not {select_layer}")
        self.num_tokens = (image_size // patch_size) ** 2
        vision = SiglipVisionConfig(
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
            num_hidden_layers=num_hidden_layers + 1 + select_layer,
            num_attention_heads=num_attention_heads,
            image_size=image_size,
            patch_size=patch_size,
            vision_use_head=False,
        )
        self.encoder = SiglipVisionModel(vision)
        # Hidden states inside the encoder are taken before this norm, so what it gives is the one that is wanted.
        self.encoder.post_layernorm = nn.Identity()
        self.encode_task_layer = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.Tanh())
        self.bottleneck = Bottleneck(hidden_size, codebook_size, code_dim, l2_normalized)

    def features(self, images: Tensor) -> Tensor:
        """Images (B,3,S,S) in [-1,1] -> features (B,N,C) before the codebook.

        Raises InvalidInputError for another size than the configuration's.
        """
        side = self.config.image_size
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, side, side):
            raise InvalidInputError(f"TA-Tok reads B,3,{side},{side}, not {tuple(images.shape)}")
        states = self.encoder(pixel_values=images.to(self.dtype)).last_hidden_state
        return self.bottleneck.in_linear(self.encode_task_layer(states))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images (B,3,S,S) in [-1,1] -> indices (B,N) int64, row by row from the top left."""
        return self.bottleneck.regularizer.nearest(self.features(images))

    forward = encode
