"""A real face, small random models in the real formats, and the check that every differentiable reward must pass."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

LETTERS = list("abcdefghijklmnopqrstuvwxyz")
SIDE = 16


@pytest.fixture(scope="session")
def face() -> Tensor:
    """An aligned face (1,3,256,256) in [0,1]."""
    from prefrestore.faces import align
    from prefrestore.faces.detect import FaceDetector

    photo = np.ascontiguousarray(pytest.importorskip("skimage.data").astronaut())
    (found,) = FaceDetector().detect(photo)
    crop = align.crop_face(photo, align.estimate_similarity(found.points, align.ffhq_template(256)), 256)
    return torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="session")
def noise() -> Callable[..., Tensor]:
    """Seeded uniform images (count,3,side,side)."""

    def draw(seed: int, count: int = 2, side: int = 64) -> Tensor:
        return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))

    return draw


@pytest.fixture(scope="session")
def climbs() -> Callable[..., None]:
    """A reward's gradient is there, belongs to each image alone, and a small step along it raises every score."""

    def check(reward: Any, images: Tensor, context: Any, step: float = 1e-3) -> None:
        assert reward.differentiable
        before = reward(images, context)
        assert not before.requires_grad and before.shape == (len(images),) and before.dtype == torch.float32
        asked = images.clone().requires_grad_()
        scores = reward(asked, context)
        torch.testing.assert_close(scores.detach(), before)
        (alone,) = torch.autograd.grad(scores[0], asked, retain_graph=True)
        assert alone[0].abs().max() > 0 and alone[1:].abs().max() == 0
        (gradient,) = torch.autograd.grad(scores.sum(), asked)
        scale = gradient.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
        assert (reward(images + step * gradient / scale, context) > before).all()
        with torch.no_grad():
            assert not reward(asked, context).requires_grad

    return check


@pytest.fixture
def clip_folder(tmp_path: Path) -> Path:
    """A random CLIPModel with its processor and tokenizer, saved as the hub has them."""
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path / "clip"
    vocabulary = [*LETTERS, *[f"{letter}</w>" for letter in LETTERS], "an</w>", "<|startoftext|>", "<|endoftext|>"]
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    end = len(vocabulary) - 1
    config = CLIPConfig(
        text_config={
            **tower,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": 12,
            "bos_token_id": end - 1,
            "eos_token_id": end,
            "pad_token_id": end,
            "projection_dim": 8,
            "hidden_act": "gelu",
        },
        vision_config={**tower, "image_size": SIDE, "patch_size": 8, "projection_dim": 8, "hidden_act": "gelu"},
        projection_dim=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = CLIPModel(config)
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.data.normal_(std=0.3)
        # This draw gives noise and most texts opposite vectors; turned about, cosines of both signs are at hand.
        model.text_projection.weight.data.neg_()
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\na n</w>\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 12})
    )
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "CLIPImageProcessor",
                "do_resize": True,
                "size": {"shortest_edge": SIDE},
                "resample": 3,
                "do_center_crop": True,
                "crop_size": {"height": SIDE, "width": SIDE},
                "do_rescale": True,
                "do_normalize": True,
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711],
            }
        )
    )
    return folder
