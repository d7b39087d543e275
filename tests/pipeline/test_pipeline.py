"""The real pipeline at tiny scale: seeds, batches, the fidelity knob, guidance, saving and loading."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.files.weights import verify, write_hashes
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.pipeline.pipeline import PrefRestorePipeline
from prefrestore.pipeline.presets import load_preset


@pytest.fixture(scope="module")
def pipeline() -> PrefRestorePipeline:
    pipe = load_preset_pipeline("tiny")
    # Fresh layers end in zeros; noise in their place makes every branch matter.
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in (pipe.autoencoder, pipe.lq_encoder, pipe.transformer):
            for parameter in part.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return pipe


@pytest.fixture
def faces() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(3)]


def seeds(*values: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(value) for value in values]


def restore(pipe: PrefRestorePipeline, image: object, *values: int, **options: object) -> np.ndarray:
    return pipe(image, generator=seeds(*values), output_type="np", **options).images  # type: ignore[arg-type]


def test_one_seed_gives_the_same_bytes_and_another_does_not(
    pipeline: PrefRestorePipeline, faces: list[np.ndarray]
) -> None:
    first = restore(pipeline, faces, 0, 1, 2)
    assert first.shape == (3, 64, 64, 3) and first.dtype == np.float32
    assert 0 <= first.min() and first.max() <= 1
    assert np.array_equal(first, restore(pipeline, faces, 0, 1, 2))
    assert not np.array_equal(first, restore(pipeline, faces, 3, 4, 5))


def test_a_face_does_not_depend_on_its_batch(pipeline: PrefRestorePipeline, faces: list[np.ndarray]) -> None:
    prompts = ["A man with grey hair.", None, "A woman."]
    together = restore(pipeline, faces, 0, 1, 2, prompt=prompts)
    for k, face in enumerate(faces):
        alone = restore(pipeline, [face], k, prompt=[prompts[k]])
        assert np.abs(together[k] - alone[0]).max() < 1 / 255


def test_the_global_generator_is_left_alone(pipeline: PrefRestorePipeline, faces: list[np.ndarray]) -> None:
    state = torch.get_rng_state()
    restore(pipeline, faces[:1], 0)
    assert torch.equal(state, torch.get_rng_state())


def test_fidelity_moves_from_the_sample_to_the_posterior_mean(
    pipeline: PrefRestorePipeline, faces: list[np.ndarray]
) -> None:
    images = pipeline.prepare(faces)
    mean = pipeline.encode_texture(images)
    spread = []
    for fidelity in (0.0, 0.5, 1.0):
        latents = [
            pipeline(faces, generator=seeds(s, s, s), fidelity=fidelity, output_type="latent").images for s in (0, 1)
        ]
        spread.append((latents[0] - latents[1]).abs().mean().item())
    assert spread[0] > spread[1] > spread[2] == 0
    assert torch.allclose(latents[0], mean)


def test_prompt_queries_and_guidance_reach_the_result(pipeline: PrefRestorePipeline, faces: list[np.ndarray]) -> None:
    plain = restore(pipeline, faces[:1], 0)
    assert not np.array_equal(plain, restore(pipeline, faces[:1], 0, prompt="A man with grey hair."))
    size = pipeline.language_model.config.hidden_size
    silent = torch.zeros(1, pipeline.image_tokenizer.num_tokens + 1, size)
    assert not np.array_equal(plain, restore(pipeline, faces[:1], 0, queries=silent))
    assert not np.array_equal(plain, restore(pipeline, faces[:1], 0, guidance_scale=2.0))
    assert not np.array_equal(plain, restore(pipeline, faces[:1], 0, num_inference_steps=3))


def test_several_restorations_of_one_face(pipeline: PrefRestorePipeline, faces: list[np.ndarray]) -> None:
    samples = restore(pipeline, faces[:2], 0, 1, num_images_per_prompt=2)
    assert samples.shape[0] == 4
    assert not np.array_equal(samples[0], samples[1])
    assert np.abs(samples[0] - restore(pipeline, faces[:1], 0)[0]).max() < 1 / 255


def test_every_kind_of_input_and_output(pipeline: PrefRestorePipeline, faces: list[np.ndarray]) -> None:
    reference = restore(pipeline, faces[0], 0)[0]
    tensor = torch.from_numpy(faces[0]).permute(2, 0, 1)[None] / 127.5 - 1
    for image in (Image.fromarray(faces[0]), faces[0].astype(np.float32) / 255, tensor):
        assert np.abs(restore(pipeline, image, 0)[0] - reference).max() < 1e-3
    pil = pipeline(faces[0], generator=seeds(0)).images[0]
    assert np.array_equal(np.asarray(pil), (reference * 255).round().astype(np.uint8))
    assert pipeline(faces[0], generator=seeds(0), output_type="pt").images.shape == (1, 3, 64, 64)
    assert restore(pipeline, Image.fromarray(faces[0]).resize((90, 90)), 0).shape == (1, 64, 64, 3)


def test_the_callback_is_called_each_step(pipeline: PrefRestorePipeline, faces: list[np.ndarray]) -> None:
    seen: list[float] = []

    def callback(pipe: object, step: int, t: float, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append(t)
        return {"latents": torch.zeros_like(values["latents"])}

    latents = pipeline(faces[0], num_inference_steps=2, callback_on_step_end=callback, output_type="latent").images
    assert seen == [0.5, 0.0] and not latents.any()


@pytest.mark.parametrize(
    "options",
    [
        {"fidelity": 1.5},
        {"output_type": "jpeg"},
        {"num_inference_steps": 0},
        {"num_images_per_prompt": 0},
        {"prompt": ["one", "two"]},
        {"generator": seeds(0, 1)},
    ],
)
def test_wrong_arguments_are_refused(
    pipeline: PrefRestorePipeline, faces: list[np.ndarray], options: dict[str, object]
) -> None:
    with pytest.raises(InvalidInputError):
        pipeline(faces[:1], **options)


@pytest.mark.parametrize("image", [[], np.zeros((4, 4)), torch.zeros(3, 8, 8)])
def test_wrong_images_are_refused(pipeline: PrefRestorePipeline, image: object) -> None:
    with pytest.raises(InvalidInputError):
        pipeline(image)


def test_saved_and_loaded_it_is_the_same(
    pipeline: PrefRestorePipeline, faces: list[np.ndarray], tmp_path: Path
) -> None:
    pipeline.save_pretrained(tmp_path)
    write_hashes(tmp_path)
    loaded = load_preset_pipeline("tiny", folder=tmp_path)
    assert loaded.config.preset == "tiny"
    assert "transformer/diffusion_pytorch_model.safetensors" in loaded.weight_hashes
    assert np.array_equal(restore(loaded, faces, 0, 1, 2), restore(pipeline, faces, 0, 1, 2))


def test_damaged_weights_are_refused(pipeline: PrefRestorePipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    with pytest.raises(WeightsError):
        verify(tmp_path)  # no record yet
    write_hashes(tmp_path)
    file = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="corrupt"):
        load_preset_pipeline("tiny", folder=tmp_path)
    file.unlink()
    with pytest.raises(WeightsError, match="missing"):
        load_preset_pipeline("tiny", folder=tmp_path)


def test_presets_are_typed_and_named() -> None:
    assert load_preset("compact").face_size == 256
    assert load_preset("paper").flow.start == "noise"
    with pytest.raises(InvalidInputError):
        load_preset("huge")
