"""A loss of what can be told of a face (glasses, beard, smile, age): what a caption knows and a severe input lost."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prefrestore.metrics.attributes import AttributeReader, FaceFeatures


class AttributeLoss(nn.Module):
    """Cross-entropy of the reader's answers on a restored face under what was told, mean over what was told.

    The latent error and LPIPS hardly mind whether a blurred face gets its glasses back, so what a caption tells would
    hardly be learnt from them.
    """

    def __init__(self, reader: AttributeReader) -> None:
        super().__init__()
        self.reader, self.network = reader, FaceFeatures().requires_grad_(False)

    def forward(self, images: Tensor, told: Mapping[str, Tensor]) -> Tensor:
        """Whole aligned faces (B,3,S,S) about [-1,1], and for each attribute rows (B,C) -> scalar.

        A row adds up to 1, or to 0 where the attribute was not told.
        """
        with torch.autocast(images.device.type, enabled=False):
            scores = self.reader.scores(self.network(images.float().clamp(-1, 1)))
        terms = torch.stack([-(told[name] * scores[name].log_softmax(1)).sum(1) for name in told])
        counted = torch.stack([rows.sum(1) for rows in told.values()]).sum()
        return terms.sum() / counted.clamp_min(1)

    @torch.no_grad()
    def truth(self, targets: Tensor) -> dict[str, Tensor]:
        """What the reader finds in true faces (B,3,S,S) in [-1,1]: rows as `forward` takes them, all of them told."""
        with torch.autocast(targets.device.type, enabled=False):
            return self.reader.probabilities(self.network(targets.float()))
