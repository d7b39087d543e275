"""A loss of what can be told of a face (glasses, beard, smile, age): what a caption knows and a severe input lost."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prefrestore.metrics.attributes import AttributeReader, FaceFeatures


class AttributeLoss(nn.Module):
    """Cross-entropy of the reader's answers on a restored face under its answers on the true one, mean over attributes.

    The latent error and LPIPS hardly mind whether a blurred face gets its glasses back, so what the language model was
    told would hardly be learnt from them.
    """

    def __init__(self, reader: AttributeReader) -> None:
        super().__init__()
        self.reader, self.network = reader, FaceFeatures().requires_grad_(False)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Whole aligned faces (B,3,S,S) about [-1,1] and the true ones -> scalar."""
        with torch.autocast(images.device.type, enabled=False):
            with torch.no_grad():
                truth = self.reader.probabilities(self.network(targets.float()))
            scores = self.reader.scores(self.network(images.float().clamp(-1, 1)))
        terms = [-(truth[name] * scores[name].log_softmax(1)).sum(1).mean() for name in truth]
        return torch.stack(terms).mean()
