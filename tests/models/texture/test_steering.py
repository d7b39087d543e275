"""Steering: nothing told changes nothing, captions are read by their words alone, and what is read acts."""

import numpy as np
import pytest
import torch
from torch import Tensor

from prefrestore.data.attributes import CLASSES, told_vector
from prefrestore.models.texture.steering import Steering, caption_states, steered
from prefrestore.pipeline.build import build_pipeline
from prefrestore.pipeline.pipeline import PrefRestorePipeline
from prefrestore.pipeline.presets import load_preset


def new_steering() -> Steering:
    """With an answer of its own, as if it had learnt."""
    torch.manual_seed(0)
    made = Steering(32, latent_channels=4, side=8, width=32, layers=1, heads=2).eval()
    torch.nn.init.normal_(made.project.weight)
    return made


def told(**attributes: str) -> Tensor:
    return torch.from_numpy(told_vector(attributes))[None]


@pytest.fixture(scope="module")
def pipeline() -> PrefRestorePipeline:
    return build_pipeline(load_preset("tiny"), {"steering": new_steering()})


def test_its_classes_are_those_of_captions() -> None:
    assert tuple(Steering(8).config.classes) == tuple(len(classes) for classes in CLASSES.values())


def test_a_new_one_adds_nothing_whatever_it_is_told() -> None:
    made = Steering(32, latent_channels=4, side=8, width=32, layers=1, heads=2)
    assert torch.count_nonzero(made(torch.randn(2, 4, 8, 8), told(glasses="glasses").repeat(2, 1))) == 0


def test_nothing_told_adds_nothing_to_the_bit() -> None:
    made, latents = new_steering(), torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        added = made(latents, torch.cat([told(), told(glasses="glasses")]))
    assert torch.count_nonzero(added[0]) == 0
    assert torch.count_nonzero(added[1]) > 0


@torch.no_grad()
def test_padding_does_not_change_what_is_read(pipeline: PrefRestorePipeline) -> None:
    branch = (pipeline.language_model, pipeline.text_tokenizer)
    reader = new_steering().reader
    alone = reader(*caption_states(*branch, ["A man with grey hair"]))
    beside = reader(*caption_states(*branch, ["A man with grey hair", "A young woman with dark hair smiles at you."]))
    for a, b in zip(alone, beside, strict=True):
        assert torch.allclose(a[0], b[0], atol=1e-5)


def test_what_is_read_is_one_class_an_attribute_or_none() -> None:
    reader = new_steering().reader
    with torch.no_grad():
        for place, head in enumerate(reader.heads):
            head.weight.zero_()
            head.bias.copy_(torch.eye(head.out_features)[0 if place % 2 else head.out_features - 1])
        found = reader.told(torch.randn(3, 5, 32), torch.ones(3, 5, dtype=torch.bool))
    expected = [[1.0 if place % 2 and k == 0 else 0.0 for k in range(n)] for place, n in enumerate(reader.classes)]
    assert found.tolist() == [sum(expected, [])] * 3


@torch.no_grad()
def test_captions_reach_the_latents_and_silence_does_not(pipeline: PrefRestorePipeline) -> None:
    steering, latents = new_steering(), torch.randn(3, 4, 8, 8)
    for head in steering.reader.heads:
        head.bias[0] += 100  # whatever it reads, it takes it for the first class
    made = steered(steering, latents, pipeline.language_model, pipeline.text_tokenizer, ["glasses", None, ""])
    assert not torch.equal(made[0], latents[0])
    assert torch.equal(made[1:], latents[1:])


def test_the_pipeline_acts_on_a_prompt_and_is_itself_without(pipeline: PrefRestorePipeline) -> None:
    side = pipeline.face_size
    face = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)

    def restored(prompt: str | None) -> np.ndarray:
        return np.asarray(pipeline(face, prompt=prompt, output_type="np").images)

    heads = pipeline.steering.reader.heads
    with torch.no_grad():
        for head in heads:
            head.bias[0] += 100
    images, silence = pipeline.prepare(face), torch.zeros(1, pipeline.image_tokenizer.num_tokens + 1, 32)
    plain, told = (pipeline.conditions(images, [text], silence).lq_latents for text in (None, "glasses"))
    assert not torch.equal(plain, told)
    before = restored(None)
    steering = pipeline.steering
    pipeline.register_modules(steering=None)
    try:
        assert np.array_equal(restored(None), before)
    finally:
        pipeline.register_modules(steering=steering)
