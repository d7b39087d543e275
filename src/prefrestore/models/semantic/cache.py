"""The language model's key-value cache while it writes: memory set aside once, and rows that advance apart."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class _FixedLayer(CacheLayerMixin):
    """Keys and values of one layer in memory set aside once; a pass writes its slots and reads up to the last of them.

    transformers' growing cache copies everything at every pass, and its static one attends over the empty part too.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length, self.used = length, 0
        self.slots: Tensor | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        # Zeros: a row that is behind reads slots that only others have written, and weight 0 times NaN is NaN.
        self.keys = key_states.new_zeros(*key_states.shape[:2], self.length, key_states.shape[3])
        self.values = value_states.new_zeros(*value_states.shape[:2], self.length, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.slots is None:
            part = slice(self.used - key_states.shape[2], self.used)
            self.keys[:, :, part], self.values[:, :, part] = key_states, value_states
        else:
            rows = torch.arange(len(self.slots), device=self.slots.device)[:, None]
            self.keys[rows, :, self.slots] = key_states.transpose(1, 2)
            self.values[rows, :, self.slots] = value_states.transpose(1, 2)
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]

    def keep(self, rows: Tensor) -> None:
        self.keys, self.values = self.keys[rows], self.values[rows]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.used, 0

    def get_seq_length(self) -> int:
        return self.used

    def get_max_length(self) -> int:
        return self.length


class FixedCache(Cache):
    """One `_FixedLayer` a layer; `place` says where the next pass writes."""

    def __init__(self, layers: int, length: int) -> None:
        super().__init__(layers=[_FixedLayer(length) for _ in range(layers)])

    def place(self, used: int, slots: Tensor | None) -> None:
        """The pass ends at slot ``used`` (exclusive); ``slots`` (B,T) where the rows differ, None where they do not."""
        for layer in self.layers:
            layer.used, layer.slots = used, slots

    def keep(self, rows: Tensor) -> None:
        """Forget the other rows."""
        for layer in self.layers:
            layer.keep(rows)
