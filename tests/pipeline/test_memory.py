"""The memory plan against numbers taken by hand and from the real models; and how far bfloat16 lies from float32."""

import math

import pytest
import torch
from safetensors import safe_open
from torch import nn

from prefrestore.files.weights import bundled_folder
from prefrestore.pipeline.build import build_pipeline, load_preset_pipeline
from prefrestore.pipeline.memory import (
    ALLOWANCE,
    CHAT,
    WAYS,
    Counter,
    MemoryPlan,
    advice,
    empty_components,
    plan_memory,
)
from prefrestore.pipeline.presets import load_preset
from prefrestore.training.stage import usual_precision

GIB = 2**30


def test_allocations_are_counted_while_they_live() -> None:
    layers = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    x = torch.zeros(3, 10)
    with torch.no_grad(), Counter() as counter:
        y = layers(x.view(3, 10))
    # 3 x 20 numbers before the ReLU and as many behind it; then the first are gone, and 3 x 5 come.
    assert counter.peak == 4 * (60 + 60)
    assert counter.live == 4 * 15
    del y
    assert counter.live == 0


def test_tensors_without_contents_are_counted_like_real_ones() -> None:
    peaks = []
    for device in ("cpu", "meta"):
        decoder = build_pipeline(load_preset("tiny")).autoencoder
        decoder = nn.Module.to(decoder, device)
        with torch.no_grad(), Counter() as counter:
            decoder.decode(torch.zeros(2, 4, 8, 8, device=device))
        peaks.append(counter.peak)
    assert peaks[0] == peaks[1] > 2 * 3 * 64 * 64 * 4


def test_the_parts_of_tiny_are_those_of_the_pipeline() -> None:
    pipeline = build_pipeline(load_preset("tiny"), {"input_skip": "new", "last_octave": "new"})
    plan = plan_memory(load_preset("tiny"), batch=3, dtype=torch.float32)
    for part in plan.components:
        module = pipeline.components[part.name]
        assert part.parameters == sum(parameter.numel() for parameter in module.parameters()), part.name
        assert part.weights == 4 * part.parameters + sum(buffer.nbytes for buffer in module.buffers()), part.name
    # By hand: the language model has 361 words of 32 numbers, twice, and two layers.
    vocabulary, width = 320 + 9 + 32, 32
    layer = 4 * width * width + 2 * 16 + 3 * width * 64 + 2 * width
    found = {part.name: part for part in plan.components}
    assert found["language_model"].parameters == 2 * vocabulary * width + 2 * layer + width
    assert found["language_model"].largest_layer == 4 * vocabulary * width
    # Keys and values of 2 layers, 2 heads of 16, for the prompt, its 16 tokens, the 16 written and the draft of 16.
    writing = next(stage for stage in plan.stages if stage.name == "write")
    assert writing.cache == 3 * 4 * 2 * 2 * 2 * 16 * (CHAT + 16 + 16 + 16)


def test_the_parts_of_compact_are_those_of_its_files() -> None:
    parts = empty_components(load_preset("compact"), torch.bfloat16)
    files = bundled_folder("compact").glob("*/*.safetensors")
    assert set(parts) == {file.parent.name for file in files} - {"preference"}
    for name, module in parts.items():
        (file,) = (bundled_folder("compact") / name).glob("*.safetensors")
        with safe_open(file, "pt") as opened:
            shapes = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}
        assert sum(map(math.prod, shapes.values())) == sum(p.numel() for p in module.parameters()), name
        assert {key: tuple(value.shape) for key, value in module.state_dict().items() if key in shapes} == shapes, name


def test_the_paper_has_the_published_sizes_and_fits_the_cards_it_should() -> None:
    plans = {4: plan_memory(load_preset("paper"), batch=4)}
    millions = {part.name: part.parameters / 1e6 for part in plans[4].components}
    assert millions["transformer"] == pytest.approx(1600, rel=0.01)  # SANA 1.5 1.6B
    vocabulary = 2 * (151_936 + 65_536 + 5) * 2048 / 1e6
    assert millions["language_model"] - vocabulary == pytest.approx(1409.4, rel=1e-3)  # Qwen3-1.7B without embeddings
    # SigLIP2-so400m has 428 M; here without its last layer of 15 and its head of 16; then the codebook of 65,536.
    assert millions["image_tokenizer"] - 65_536 * 1536 / 1e6 == pytest.approx(428 - 31 + 6, rel=0.01)
    assert sum(part.weights for part in plans[4].components) / GIB == pytest.approx(8.83, abs=0.05)
    writing = next(stage for stage in plans[4].stages if stage.name == "write")
    assert writing.cache == 4 * 2 * 2 * 28 * 8 * 128 * (CHAT + 729 + 729 + 256)

    def told(card: int) -> tuple[int, str, bool]:
        found = advice(plans, card * GIB)
        assert found is not None
        return found[0].batch, found[1], found[2]

    assert plans[4].fits("resident", 24 * GIB)
    assert told(24) == told(16) == (4, "resident", False)
    assert told(8)[1] == "model"
    assert told(4)[1] == "sequential"
    assert advice(plans, 2 * GIB) is None


def peaks(plan: MemoryPlan) -> list[int]:
    return [plan.peak(way)[0] for way in WAYS]


def test_offloading_needs_less_and_more_faces_need_more() -> None:
    one, two, four = (plan_memory(load_preset("compact"), batch=batch) for batch in (1, 2, 4))
    for plan in (one, two, four):
        assert peaks(plan) == sorted(peaks(plan), reverse=True)
        assert not plan.fits("resident", ALLOWANCE)
    assert all(a < b for a, b in zip(peaks(one), peaks(four), strict=True))
    # What depends on the faces is in proportion to them.
    assert four.carried == 4 * one.carried
    for stage, double in zip(two.stages, four.stages, strict=True):
        assert double.cache == 2 * stage.cache
        assert double.activations == pytest.approx(2 * stage.activations, rel=0.01)


# Where a processor only imitates bf16, this takes a minute.
IMITATED = () if usual_precision() == "bf16" else (pytest.mark.slow,)


@pytest.mark.parametrize(
    ("preset", "mean", "largest"), [("tiny", 5e-4, 3e-3), pytest.param("compact", 2e-3, 2e-2, marks=IMITATED)]
)
def test_bfloat16_stays_near_float32(preset: str, mean: float, largest: float) -> None:
    size = load_preset(preset).face_size
    grid = torch.linspace(-1, 1, size)
    face = torch.stack([grid.expand(size, size), grid.expand(size, size).T, (9 * grid).sin().outer((7 * grid).cos())])
    images = {
        dtype: load_preset_pipeline(preset, dtype=dtype)(face[None], output_type="pt").images
        for dtype in (torch.float32, torch.bfloat16)
    }
    distance = (images[torch.float32] - images[torch.bfloat16]).abs()
    assert images[torch.bfloat16].dtype == torch.float32
    assert 0 < distance.mean() < mean
    assert distance.max() < largest
