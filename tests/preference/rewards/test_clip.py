"""The three CLIP rewards on a tiny random model in the real format, and open_clip's state dicts."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from prefrestore.errors import WeightsError
from prefrestore.preference.rewards import build_reward
from prefrestore.preference.rewards.base import RewardContext, pictures
from prefrestore.preference.rewards.clip import pixel_values
from prefrestore.preference.rewards.open_clip import to_transformers

NAMES = ["pickscore", "hps", "clipscore"]
CAPTIONS = ["bald", "a girl with long hair and a hat"]
Noise = Callable[..., Tensor]


@pytest.fixture
def parts(clip_folder: Path) -> Any:
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    return (
        CLIPModel.from_pretrained(clip_folder).eval(),
        AutoTokenizer.from_pretrained(clip_folder),
        AutoImageProcessor.from_pretrained(clip_folder),
    )


def cosines(parts: Any, images: Tensor, captions: list[str]) -> Tensor:
    """By the whole model's own forward, one pair at a time."""
    model, tokenizer, processor = parts
    found = []
    for values, caption in zip(pixel_values(images, processor.to_dict()), captions, strict=True):
        inputs = tokenizer([caption], truncation=True, max_length=12, return_tensors="pt")
        with torch.no_grad():
            found.append(model(pixel_values=values[None], **inputs).logits_per_image[0, 0] / model.logit_scale.exp())
    return torch.stack(found)


@pytest.mark.parametrize("shape", [(64, 64), (16, 16), (40, 61), (61, 40), (9, 12)])
def test_pixel_values_are_the_processors_up_to_rounding(shape: tuple[int, int], parts: Any) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, *shape), dtype=np.uint8)) / 255
    expected = parts[2](Image.fromarray(pictures(images)[0]), return_tensors="pt")["pixel_values"]
    found = pixel_values(images, parts[2].to_dict())
    assert found.shape == expected.shape == (1, 3, 16, 16)
    levels = (found - expected).abs() * 255 * 0.27
    # Pillow rounds to 8 bits after each of the two directions; enlarging, it also clips between them.
    assert levels.mean() < 0.5
    assert levels.max() < 2 or min(shape) < 16


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("pickscore", lambda cosine, scale: scale * cosine / 26),
        ("hps", lambda cosine, scale: cosine),
        ("clipscore", lambda cosine, scale: scale * cosine / 100),
    ],
)
def test_each_formula(name: str, formula: Callable[..., Tensor], clip_folder: Path, parts: Any, noise: Noise) -> None:
    images = noise(0, 4)
    captions = CAPTIONS * 2
    cosine = cosines(parts, images, captions)
    assert (cosine > 0.02).any() and (cosine < -0.02).any(), "the random model must show both signs"
    reward = build_reward(name, model=str(clip_folder))
    scores = reward(images, RewardContext(captions=captions))
    torch.testing.assert_close(scores, formula(cosine, parts[0].logit_scale.exp().detach()), atol=1e-5, rtol=1e-4)
    again = reward(images.flip(0), RewardContext(captions=captions[::-1])).flip(0)
    torch.testing.assert_close(again, scores, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_along_the_gradient_raises_the_score(
    name: str, clip_folder: Path, noise: Noise, climbs: Callable[..., None]
) -> None:
    reward = build_reward(name, model=clip_folder)
    # Images that the caption fits a little.
    hps = build_reward("hps", model=clip_folder)
    many, captions = noise(0, 32), [CAPTIONS[0]] * 32
    above = (hps(many, RewardContext(captions=captions)) > 0.01).nonzero()[:2, 0]
    assert len(above) == 2
    climbs(reward, many[above], RewardContext(captions=captions[:2]))


def test_no_caption_no_score_unless_a_text_is_named(clip_folder: Path, noise: Noise) -> None:
    context = RewardContext(captions=[CAPTIONS[0], None, "  "])
    scores = build_reward("hps", model=clip_folder)(noise(0, 3), context)
    assert scores.isnan().tolist() == [False, True, True]
    named = build_reward("hps", model=clip_folder, default_caption="a face")(noise(0, 3), context)
    context = RewardContext(captions=[CAPTIONS[0], "a face", "a face"])
    told = build_reward("hps", model=clip_folder)(noise(0, 3), context)
    assert not named.isnan().any() and torch.equal(named, told)


def test_a_missing_caption_leaves_the_others_gradient_whole(clip_folder: Path, noise: Noise) -> None:
    images = noise(0).requires_grad_()
    scores = build_reward("pickscore", model=clip_folder)(images, RewardContext(captions=[CAPTIONS[0], None]))
    scores[0].backward()
    assert images.grad is not None and images.grad.isfinite().all() and images.grad[0].abs().max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_missing_weights_name_the_option(name: str, clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"{name} cannot read a CLIP model.*'model'"):
        build_reward(name, model=tmp_path / "nothing")
    (clip_folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="'model'"):
        build_reward(name, model=clip_folder)


def test_a_missing_tokenizer_names_the_option(clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="'processor'"):
        build_reward("clipscore", model=clip_folder, processor=tmp_path / "nothing")
    (clip_folder / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match="'processor'"):
        build_reward("clipscore", model=clip_folder)


def test_an_incomplete_model_is_not_filled_at_random(clip_folder: Path) -> None:
    file = clip_folder / "model.safetensors"
    weights = load_file(file)
    del weights["visual_projection.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="visual_projection.weight"):
        build_reward("pickscore", model=clip_folder)


class OpenClipBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 2 * width), "c_proj": nn.Linear(2 * width, width)})

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp["c_proj"](functional.gelu(self.mlp["c_fc"](self.ln_2(x))))


class Blocks(nn.Module):
    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(OpenClipBlock(width, heads) for _ in range(depth))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class OpenClipVision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(16))
        self.positional_embedding = nn.Parameter(torch.zeros(5, 16))
        self.proj = nn.Parameter(torch.zeros(16, 8))
        self.conv1 = nn.Conv2d(3, 16, 8, 8, bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(16), nn.LayerNorm(16)
        self.transformer = Blocks(16, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        cells = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), cells], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class OpenClip(nn.Module):
    """The ViT of open_clip, by its names: what a published state dict is of."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.zeros(12, 16))
        self.text_projection = nn.Parameter(torch.zeros(16, 8))
        self.logit_scale = nn.Parameter(torch.tensor(4.6))
        self.visual = OpenClipVision()
        self.transformer = Blocks(16, 2, 2)
        self.token_embedding = nn.Embedding(words, 16)
        self.ln_final = nn.LayerNorm(16)
        for weight in self.parameters():
            if weight.ndim:
                weight.data.normal_(std=0.3)
        self.register_buffer("attn_mask", torch.full((12, 12), -math.inf).triu(1))

    def text(self, tokens: Tensor) -> Tensor:
        count = tokens.shape[1]
        x = self.token_embedding(tokens) + self.positional_embedding[:count]
        x = self.ln_final(self.transformer(x, self.attn_mask[:count, :count]))
        return x[torch.arange(len(x)), tokens.argmax(1)] @ self.text_projection


@pytest.fixture
def open_clip(clip_folder: Path) -> OpenClip:
    from transformers import CLIPConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return OpenClip(CLIPConfig.from_pretrained(clip_folder).text_config.vocab_size).eval()


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_an_open_clip_state_dict_scores_as_open_clip_does(
    kind: str, open_clip: OpenClip, clip_folder: Path, tmp_path: Path, parts: Any, noise: Noise
) -> None:
    file = tmp_path / f"HPS_v2.1_compressed.{kind}"
    if kind == "pt":
        torch.save({"epoch": 1, "state_dict": open_clip.state_dict()}, file)
    else:
        save_file(open_clip.state_dict(), file)
    reward = build_reward("hps", model=clip_folder, open_clip=file)
    images = noise(0)
    tokens = parts[1](CAPTIONS, padding=True, truncation=True, max_length=12, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        pictured = open_clip.visual(pixel_values(images, parts[2].to_dict()))
        expected = functional.cosine_similarity(pictured, open_clip.text(tokens))
    found = reward(images, RewardContext(captions=CAPTIONS))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    plain = build_reward("hps", model=clip_folder)(images, RewardContext(captions=CAPTIONS))
    assert (found - plain).abs().max() > 0.05


def test_state_dicts_that_do_not_fit(open_clip: OpenClip, clip_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    with pytest.raises(WeightsError, match="'open_clip'"):
        build_reward("hps", model=clip_folder, open_clip=file)
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match="'open_clip'"):
        build_reward("hps", model=clip_folder, open_clip=file)
    state = open_clip.state_dict()
    torch.save({name: value for name, value in state.items() if name != "visual.proj"}, file)
    with pytest.raises(WeightsError, match="visual_projection.weight"):
        build_reward("hps", model=clip_folder, open_clip=file)
    torch.save({**state, "visual.conv1.weight": torch.zeros(16, 3, 4, 4)}, file)
    with pytest.raises(WeightsError, match="does not fit"):
        build_reward("hps", model=clip_folder, open_clip=file)
    with pytest.raises(WeightsError, match="score_head"):
        to_transformers({"score_head.weight": torch.zeros(1)})
    torch.save(state, file)
    with pytest.raises(WeightsError, match="'model'"):
        build_reward("hps", model=tmp_path / "nothing", open_clip=file)


def test_a_pickle_that_would_run_code_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (tmp_path / "touched",)  # type: ignore[return-value]

    torch.save({"state_dict": Touch()}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match="'open_clip'"):
        build_reward("hps", model=clip_folder, open_clip=tmp_path / "evil.pt")
    assert not (tmp_path / "touched").exists()


def test_published_defaults_take_the_published_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """PickScore without options asks the hub for exactly these two."""
    from prefrestore.preference.rewards import clip

    asked: list[Any] = []
    monkeypatch.setattr(clip, "load_clip", lambda name, model: asked.append((name, model)) or nn.Identity())
    monkeypatch.setattr(clip, "_load_processor", lambda name, source: asked.append((name, source)) or (None, {}))
    build_reward("pickscore")
    assert asked == [
        ("pickscore", "yuvalkirstain/PickScore_v1"),
        ("pickscore", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),
    ]
