"""Whether a draft pays: what the passes cost, against what decoding one token a pass would have cost."""

from __future__ import annotations

from collections.abc import Sequence

TOKEN_COST = 1 / 8
"""What one token more adds to a pass, in passes over one token. A fixed number and no clock: the same input takes the
same passes on every machine. On CPUs 0.05 to 0.16 was seen; on a GPU it is less."""
MOST_LOSS, MOST_GAIN = 8.0, 32.0
"""In passes over one token: with a higher loss the draft is given up; a higher gain is not remembered."""


class Account:
    """Loss of decoding from a draft against decoding one token a pass, averaged over the rows of a batch."""

    def __init__(self) -> None:
        self.loss = 0.0

    def book(self, fed: int, settled: Sequence[int]) -> None:
        """A pass over ``fed`` tokens a row, the prompt left out, that settled so many tokens of each row."""
        self.loss += 1 + TOKEN_COST * (fed - 1) - sum(settled) / len(settled)
        self.loss = max(self.loss, -MOST_GAIN)

    @property
    def pays(self) -> bool:
        """Whether the draft is worth going on with."""
        return self.loss <= MOST_LOSS
