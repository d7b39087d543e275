"""What PickScore, HPSv2.1 and CLIPScore share: the cosine of an image and its caption in a CLIP model, with gradients.

The image processor's numbers are applied by torch operations, because its own code goes through 8-bit pictures and
would lose the gradient.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from prefrestore.errors import WeightsError
from prefrestore.preference.rewards.base import ImageReward, RewardContext

_FILTERS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as preprocessor_config.json writes them


class ClipReward(ImageReward):
    """A function of the cosine of an image and its caption.

    A picture without a caption (None or blank) has no score, unless ``default_caption`` names the text to use for it.

    Args:
        model: a hub id, or a folder with config.json and model.safetensors of a transformers ``CLIPModel``.
        processor: where preprocessor_config.json and the tokenizer's files are, if not with the model.
        default_caption: the text for pictures without a caption.
        network: a ``CLIPModel`` that is there already; ``model`` then only says where its processor is.

    Raises:
        WeightsError: a file is missing, cannot be fetched, or does not fit; the message names the option.
    """

    needs_caption = True
    differentiable = True

    def __init__(
        self,
        model: str | Path,
        *,
        processor: str | Path | None = None,
        default_caption: str | None = None,
        network: Any | None = None,
    ) -> None:
        self.default_caption = default_caption
        self.network = (load_clip(self.name, model) if network is None else network).eval().requires_grad_(False)
        self.tokenizer, self.settings = _load_processor(self.name, processor or model)
        self._known: dict[str, Tensor] = {}

    @abstractmethod
    def scaled(self, cosine: Tensor) -> Tensor:
        """The scores (B,) of the cosines (B,)."""

    def score(self, images: Tensor, context: RewardContext) -> Tensor:
        """See `ImageReward.score`."""
        assert context.captions is not None
        self.network.to(images.device)
        texts = [(caption or "").strip() or self.default_caption for caption in context.captions]
        embedded = self.network.get_image_features(pixel_values=pixel_values(images, self.settings)).pooler_output
        scores = self.scaled((functional.normalize(embedded, dim=1) * self._captions(texts, images.device)).sum(1))
        told = torch.tensor([text is not None for text in texts], device=images.device)
        # Chosen at the end, not multiplied by NaN: a NaN on the way would reach the gradient.
        return torch.where(told, scores, torch.full_like(scores, torch.nan))

    def _captions(self, texts: Sequence[str | None], device: torch.device) -> Tensor:
        """Unit vectors (B,D) of the texts, zeros for None; each text goes through the network once in a life."""
        new = sorted({text for text in texts if text is not None} - self._known.keys())
        if new:
            length = self.network.config.text_config.max_position_embeddings
            tokens = self.tokenizer(new, padding=True, truncation=True, max_length=length, return_tensors="pt")
            with torch.no_grad():
                features = self.network.get_text_features(
                    input_ids=tokens["input_ids"].to(device), attention_mask=tokens["attention_mask"].to(device)
                ).pooler_output
            self._known |= dict(zip(new, functional.normalize(features, dim=1).cpu(), strict=True))
        absent = torch.zeros(self.network.config.projection_dim)
        return torch.stack([absent if text is None else self._known[text] for text in texts]).to(device)


def pixel_values(images: Tensor, settings: dict[str, Any]) -> Tensor:
    """Images (B,3,H,W) in [0,1] -> what a CLIP image processor of these settings makes of them, differentiable.

    Resized antialiased and clamped to [0,1], as 8-bit pictures are; cropped in the middle; normalised.
    """
    if settings.get("do_resize", True):
        size = _resized(images.shape[2:], settings["size"])
        mode = _FILTERS[settings.get("resample", 3)]
        images = functional.interpolate(images, size, mode=mode, antialias=True).clamp(0, 1)
    if settings.get("do_center_crop", True):
        height, width = settings["crop_size"]["height"], settings["crop_size"]["width"]
        top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
        images = images[:, :, top : top + height, left : left + width]
    if settings.get("do_normalize", True):
        mean, deviation = (images.new_tensor(settings[key]).view(1, 3, 1, 1) for key in ("image_mean", "image_std"))
        images = (images - mean) / deviation
    return images


def load_clip(reward: str, model: str | Path) -> Any:
    """A `CLIPModel` from safetensors.

    Raises:
        WeightsError: it cannot be read, or lacks a weight (which transformers would draw at random).
    """
    from transformers import CLIPModel

    try:
        network, report = CLIPModel.from_pretrained(
            str(model), use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreadable(reward, "CLIP model", model, "model", error) from error
    if report["missing_keys"] or report["mismatched_keys"]:
        name = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))[0]
        raise WeightsError(f"the reward {reward}: {model} does not hold the weight {name} of its CLIP model")
    return network


def _load_processor(reward: str, source: str | Path) -> tuple[Any, dict[str, Any]]:
    """The tokenizer, and the image processor's settings."""
    from transformers import AutoImageProcessor, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source))
        settings = AutoImageProcessor.from_pretrained(str(source)).to_dict()
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise _unreadable(reward, "CLIP processor and tokenizer", source, "processor", error) from error
    if settings.get("resample", 3) not in _FILTERS:
        raise WeightsError(f"the reward {reward}: {source} resizes by filter {settings['resample']}, not 2 or 3")
    return tokenizer, settings


def _unreadable(reward: str, what: str, source: str | Path, option: str, error: Exception) -> WeightsError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return WeightsError(
        f"the reward {reward} cannot read a {what} from {source}: name a folder or a hub id with its option "
        f"'{option}' ({first})"
    )


def _resized(shape: Sequence[int], size: dict[str, int]) -> tuple[int, int]:
    if "shortest_edge" not in size:
        return size["height"], size["width"]
    height, width = shape
    short = size["shortest_edge"]
    if height <= width:
        return short, int(short * width / height)
    return int(short * height / width), short
