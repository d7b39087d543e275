"""The published inference as its description says it, on the modules that a tiny checkpoint was written from.

Nothing of the package is used here: no cache, no batching, no shortcuts.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from tiny_checkpoint import CODES, FACE, TOKENIZER, Tiny
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

PLACES = 16
SCALING = 0.41407


@dataclass
class Straight:
    """Every intermediate of one face."""

    lq_tokens: Tensor
    ids: list[int]
    written: list[int]
    queries: Tensor
    latents: Tensor
    condition: Tensor
    steps: list[Tensor]


def pixels(face: Image.Image) -> Tensor:
    return torch.tensor(np.asarray(face), dtype=torch.float32).permute(2, 0, 1)[None] / 255 * 2 - 1


def semantic_image(face: Image.Image) -> Tensor:
    side = TOKENIZER["image_size"]
    return pixels(face.resize((side, side), Image.Resampling.BICUBIC))


def texture_image(face: Image.Image) -> Tensor:
    """torchvision's Resize(FACE) and CenterCrop(FACE) of a picture: for the formats that the tests use, by hand."""
    size, corner = {
        (40, 50): ((32, 40), (0, 4)),
        (200, 200): ((32, 32), (0, 0)),
        (800, 650): ((39, 32), (4, 0)),  # 32 * 800 / 650 = 39.4; the corner 3.5 is rounded to the even number
    }[face.size]
    face = face.resize(size, Image.Resampling.BILINEAR)
    return pixels(face.crop((*corner, corner[0] + FACE, corner[1] + FACE)))


def tokens_of(tiny: Tiny, image: Tensor) -> Tensor:
    state = tiny.vision(pixel_values=image, output_hidden_states=True).hidden_states[-2]
    rest = tiny.rest
    state = torch.tanh(state @ rest["encode_task_layer.0.weight"].T + rest["encode_task_layer.0.bias"])
    feature = state @ rest["bottleneck.in_linear.weight"].T + rest["bottleneck.in_linear.bias"]
    table, layer = rest["bottleneck.regularizer.embedding.weight"], "bottleneck.regularizer.embedding_proj"
    codes = table @ rest[f"{layer}.weight"].T + rest[f"{layer}.bias"]
    cosine = torch.einsum("bnc,kc->bnk", feature, codes) / feature.norm(dim=-1)[..., None] / codes.norm(dim=-1)
    return cosine.argmax(-1)[0]


def chat_ids(tokenizer: PreTrainedTokenizerFast, lq_tokens: Tensor, question: str) -> list[int]:
    before = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    after = f"\n{question}<|im_end|>\n<|im_start|>assistant\n<im_start><S0>"
    first = tokenizer.get_vocab()["<I0>"]
    assert tokenizer.get_vocab()[f"<I{CODES - 1}>"] == first + CODES - 1
    encode = tokenizer.backend_tokenizer.encode
    images = [first + int(token) for token in lq_tokens]
    return encode(before, add_special_tokens=False).ids + images + encode(after, add_special_tokens=False).ids


def write(tiny: Tiny, ids: list[int]) -> tuple[list[int], Tensor]:
    """Greedy over the whole vocabulary, the whole sequence every time; then a second pass for the hidden states."""
    table = tiny.language_model.model.embed_tokens.weight
    written: list[int] = []
    for _ in range(PLACES):
        logits = tiny.language_model(inputs_embeds=table[torch.tensor([ids + written])]).logits
        written.append(int(logits[0, -1].argmax()))
    output = tiny.language_model(inputs_embeds=table[torch.tensor([ids + written])], output_hidden_states=True)
    return written, output.hidden_states[-1][:, -(PLACES + 1) :]


def connect(tiny: Tiny, name: str, x: Tensor, norm: Tensor | None = None) -> Tensor:
    weights = tiny.connectors
    x = F.gelu(x @ weights[f"{name}.0.weight"].T + weights[f"{name}.0.bias"], approximate="tanh")
    x = x @ weights[f"{name}.2.weight"].T + weights[f"{name}.2.bias"]
    scale = weights["diffusion_connector.3.weight"] if norm is None else norm
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * scale


@torch.no_grad()
def restore(
    tiny: Tiny,
    tokenizer: PreTrainedTokenizerFast,
    face: Image.Image,
    noise: Tensor,
    question: str = "Please reconstruct the given image.",
    steps: int = 30,
    guidance: float = 2.0,
) -> Straight:
    lq_tokens = tokens_of(tiny, semantic_image(face))
    ids = chat_ids(tokenizer, lq_tokens, question)
    written, queries = write(tiny, ids)
    latents = tiny.autoencoder.encode(texture_image(face)).latent * SCALING
    patches = tiny.transformer.patch_embed(latents)
    condition = torch.cat(
        [connect(tiny, "diffusion_connector", queries), connect(tiny, "vae_connector", patches)], dim=1
    )
    assert condition.shape[1] == PLACES + 1 + (FACE // 4) ** 2
    x, track = noise, []
    sigmas = [*np.linspace(1, 1 / steps, steps), 0.0]
    for now, then in zip(sigmas[:-1], sigmas[1:], strict=True):
        both = tiny.transformer(
            torch.cat([x, x]),
            encoder_hidden_states=torch.cat([torch.zeros_like(condition), condition]),
            timestep=torch.tensor([1000 * now, 1000 * now], dtype=torch.float32),
            return_dict=False,
        )[0]
        without, told = both.chunk(2)
        x = x + (then - now) * (without + guidance * (told - without))
        track.append(x)
    return Straight(lq_tokens, ids, written, queries, latents, condition, track)
