"""What the package computes from a published checkpoint equals the straight-line computation, stage by stage."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import straight
import torch
from PIL import Image
from tiny_checkpoint import ARCHITECTURE, CODES, Tiny
from torch import Tensor

from prefrestore.errors import InvalidInputError
from prefrestore.models.semantic.instruction import ImageVocabulary, build_chats
from prefrestore.models.semantic.integrator import write_tokens
from prefrestore.pipeline.pipeline import PrefRestorePipeline
from prefrestore.pipeline.published import procedure
from prefrestore.pipeline.published.convert import convert

SEED = 7


@pytest.fixture(scope="module")
def face() -> Image.Image:
    rng = np.random.default_rng(3)
    return Image.fromarray(rng.integers(0, 256, (50, 40, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def pipeline(tiny: Tiny) -> PrefRestorePipeline:
    return PrefRestorePipeline.from_pretrained(tiny.assembled, architecture=ARCHITECTURE)


@pytest.fixture(scope="module")
def noise() -> Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(SEED))


def close(ours: Tensor, theirs: Tensor, bound: float = 1e-4) -> bool:
    """The largest difference relative to the size of the numbers."""
    return bool((ours - theirs).abs().max() <= bound * theirs.abs().max())


@pytest.mark.parametrize("converted", [False, True])
def test_every_stage_equals_the_straight_line(
    pipeline: PrefRestorePipeline, tiny: Tiny, face: Image.Image, noise: Tensor, converted: bool, tmp_path: Path
) -> None:
    caption = "A man, 63, with grey hair." if converted else None
    if converted:
        convert(tiny.assembled, tmp_path / "ours", architecture=ARCHITECTURE, shard_bytes=20_000, log=lambda _: None)
        pipeline = PrefRestorePipeline.from_pretrained(tmp_path / "ours")
    question = "Please reconstruct the given image" + (f" based on the image content: {caption}" if caption else ".")
    expected = straight.restore(tiny, pipeline.text_tokenizer, face, noise, question)
    assert len(set(expected.lq_tokens.tolist())) > 5 and len(set(expected.written)) > 3  # not all the same by chance

    semantic, texture = procedure.views([face], 56, 32)
    tokens = pipeline.image_tokenizer.encode(semantic)
    assert torch.equal(tokens[0], expected.lq_tokens)
    chat = build_chats(pipeline.text_tokenizer, tokens, [caption])
    assert chat.input_ids[0].tolist() == expected.ids
    vocabulary = ImageVocabulary.of(pipeline.text_tokenizer)
    written = write_tokens(pipeline.language_model, chat, vocabulary, 16, constrained=False)
    assert (written.tokens[0] + vocabulary.first).tolist() == expected.written
    assert written.queries.shape == (1, 17, 32)
    assert close(written.queries, expected.queries)
    queries = pipeline.encode_semantics(semantic, [caption], constrained=False)
    conditions = pipeline.conditions(texture, [caption], queries)
    assert close(conditions.lq_latents, expected.latents)
    assert close(conditions.condition, expected.condition)

    track = []

    def keep(pipe: object, step: int, t: float, values: dict[str, Tensor]) -> dict[str, Tensor]:
        track.append(values["latents"].clone())
        return {}

    generator = torch.Generator().manual_seed(SEED)
    images = pipeline(
        face, prompt=caption, generator=generator, reference=True, output_type="pt", callback_on_step_end=keep
    ).images
    assert len(track) == 30
    assert all(close(ours, theirs) for ours, theirs in zip(track, expected.steps, strict=True))
    decoded = tiny.autoencoder.decode(expected.steps[-1] / straight.SCALING).sample
    assert close(images, (decoded / 2 + 0.5).clamp(0, 1))


@pytest.mark.parametrize("size", [(200, 200), (800, 650)])
@torch.no_grad()
def test_pictures_of_other_sizes_give_the_straight_line_s_latents(
    pipeline: PrefRestorePipeline, tiny: Tiny, size: tuple[int, int]
) -> None:
    picture = noisy(*size)
    semantic, texture = procedure.views(picture, 56, 32)
    expected = straight.restore(tiny, pipeline.text_tokenizer, picture, torch.zeros(1, 4, 8, 8), steps=1)
    assert torch.equal(pipeline.image_tokenizer.encode(semantic)[0], expected.lq_tokens)
    assert close(pipeline.encode_texture(texture), expected.latents, 1e-5)


@pytest.mark.parametrize("size", [(200, 200), (800, 650), (650, 800)])
def test_the_texture_view_is_resized_bilinearly_with_antialiasing(size: tuple[int, int]) -> None:
    picture = noisy(*size)
    short = min(size)
    height, width = 512 * size[1] // short, 512 * size[0] // short
    values = torch.tensor(np.asarray(picture)).permute(2, 0, 1)[None].float()
    values = torch.nn.functional.interpolate(values, (height, width), mode="bilinear", antialias=True)
    top, left = round((height - 512) / 2), round((width - 512) / 2)
    expected = values[0, :, top : top + 512, left : left + 512]
    texture = procedure.texture_view(picture, 512)
    # Pillow rounds to 8 bits after each of the two directions.
    assert float(((texture + 1) * 127.5 - expected).abs().max()) < 1.1


def noisy(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(5)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_sampled_tokens_are_the_generator_s(pipeline: PrefRestorePipeline, face: Image.Image) -> None:
    def run(seed: int, **options: Any) -> Tensor:
        options |= {"generator": torch.Generator().manual_seed(seed), "num_inference_steps": 1}
        return pipeline(face, reference=True, output_type="latent", **options).images

    drawn = run(0, sample_tokens=True)
    assert torch.equal(drawn, run(0, sample_tokens=True))
    assert not torch.equal(drawn, run(0)) and not torch.equal(drawn, run(1, sample_tokens=True))


def test_guidance_of_one_is_the_condition_alone(
    pipeline: PrefRestorePipeline, tiny: Tiny, face: Image.Image, noise: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    forward = type(pipeline.transformer).forward

    def counted(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.append(len(hidden_states))
        return forward(self, hidden_states, *args, **kwargs)

    expected = straight.restore(tiny, pipeline.text_tokenizer, face, noise, guidance=1.0, steps=5)
    monkeypatch.setattr(type(pipeline.transformer), "forward", counted)
    latents = pipeline(
        face,
        generator=torch.Generator().manual_seed(SEED),
        reference=True,
        guidance_scale=1.0,
        num_inference_steps=5,
        output_type="latent",
    ).images
    assert calls == [1] * 5
    assert close(latents, expected.steps[-1])


def test_by_default_only_image_tokens_are_written_and_the_seed_decides(
    pipeline: PrefRestorePipeline, tiny: Tiny, face: Image.Image
) -> None:
    semantic, _ = procedure.views(face, 56, 32)
    chat = build_chats(pipeline.text_tokenizer, pipeline.image_tokenizer.encode(semantic))
    vocabulary = ImageVocabulary.of(pipeline.text_tokenizer)
    free = write_tokens(pipeline.language_model, chat, vocabulary, 16, constrained=False).tokens
    assert not bool(((free >= 0) & (free < CODES)).all())  # so that the constraint has something to do
    tied = write_tokens(pipeline.language_model, chat, vocabulary, 16).tokens
    assert bool(((tied >= 0) & (tied < CODES)).all())

    def run(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return pipeline(face, generator=generator, num_inference_steps=2, output_type="latent").images

    assert torch.equal(run(0), run(0)) and not torch.equal(run(0), run(1))
    assert pipeline.config.solver == "dpm" and pipeline.config.num_inference_steps < procedure.SAMPLING[0]


def test_an_instruction_that_is_too_long_is_refused(pipeline: PrefRestorePipeline, face: Image.Image) -> None:
    assert pipeline.text_tokenizer.model_max_length == 400
    with pytest.raises(InvalidInputError, match="400"):
        pipeline(face, prompt="grey hair " * 100)


def test_views_of_a_face() -> None:
    wide = Image.new("RGB", (75, 50))
    wide.paste((255, 255, 255), (25, 0, 50, 50))
    semantic, texture = procedure.views(wide, 28, 20)
    assert semantic.shape == (1, 3, 28, 28) and texture.shape == (1, 3, 20, 20)
    assert semantic.min() == -1 and semantic.max() == 1
    # The middle two thirds of the width: the white stripe is now half of the picture.
    assert abs(float(texture.mean())) < 0.05
    with pytest.raises(InvalidInputError):
        procedure.views(np.zeros((4, 4, 3), dtype=np.float32), 28, 20)
    with pytest.raises(InvalidInputError):
        procedure.views([], 28, 20)


def test_a_file_whose_connectors_have_norms_of_their_own(tiny: Tiny, copy: Path) -> None:
    from safetensors.torch import load_file
    from tiny_checkpoint import write_shards

    tensors = {k: v for file in copy.glob("*.safetensors") for k, v in load_file(file).items()}
    one, other = tensors["model.diffusion_connector.3.weight"], torch.rand(24) + 1
    write_shards(copy, {**tensors, "model.vae_connector.3.weight": other}, 2)
    with pytest.warns(UserWarning, match="norms differ"):
        pipe = PrefRestorePipeline.from_pretrained(copy, architecture=ARCHITECTURE)
    assert torch.equal(pipe.connectors.vae_connector[3].weight, other)
    assert torch.equal(pipe.connectors.diffusion_connector[3].weight, one)
    # Only the second name: both connectors share it.
    del tensors["model.diffusion_connector.3.weight"]
    write_shards(copy, {**tensors, "model.vae_connector.3.weight": other}, 1)
    pipe = PrefRestorePipeline.from_pretrained(copy, architecture=ARCHITECTURE)
    assert torch.equal(pipe.connectors.vae_connector[3].weight, other)
    assert torch.equal(pipe.connectors.diffusion_connector[3].weight, other)
