"""The one builder: every source of a component, seeds, presets from files, and that trainers leave it to the preset."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.pipeline.build import build_pipeline, load_preset_pipeline
from prefrestore.pipeline.components import COMPONENTS, ORDER, build_component, build_components
from prefrestore.pipeline.presets import PRESET_NAMES, Preset, load_preset, preset_identity, weights_folder

SOURCE = Path(__file__).parents[2] / "src" / "prefrestore"
PUBLISHED = str(Path(__file__).parents[1] / "presets" / "published.json")
"""The published classes with small numbers."""


def same(one: nn.Module, other: nn.Module) -> bool:
    there = other.state_dict()
    return all(torch.equal(value, there[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("preset", ["tiny", PUBLISHED])
def test_new_weights_come_from_the_seed_alone(preset: str) -> None:
    values, before = load_preset(preset), torch.get_rng_state()
    torch.manual_seed(5)
    first = build_components(values, dict.fromkeys(values.components, "new"), seed=1)
    torch.manual_seed(6)
    again = build_components(values, dict.fromkeys(reversed(list(values.components)), "new"), seed=1)
    other = build_components(values, dict.fromkeys(values.components, "new"), seed=2)
    torch.set_rng_state(before)
    networks = [name for name in values.components if name != "text_tokenizer"]
    assert [name for name in networks if not same(first[name], again[name])] == []
    assert [name for name in networks if same(first[name], other[name])] == []


def test_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    build_pipeline(load_preset("tiny"), seed=3)
    assert torch.equal(state, torch.get_rng_state())


def test_tied_embeddings_are_one_parameter_full_or_empty() -> None:
    preset = load_preset("compact")
    for source in ("new", "empty"):
        model = build_component(preset, "language_model", source)
        assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("preset", ["tiny", PUBLISHED])
def test_loaded_empty_and_handed_in(preset: str, tmp_path: Path) -> None:
    values = load_preset(preset)
    pipeline = build_pipeline(values)
    for name in values.components:
        part = getattr(pipeline, name)
        part.save_pretrained(tmp_path / name)
        loaded = build_component(values, name, tmp_path / name)
        assert type(loaded) is type(part)
        assert build_component(values, name, part) is part
        if isinstance(part, nn.Module):
            assert same(loaded, part) and not loaded.training
            assert not any(parameter.requires_grad for parameter in loaded.parameters())
            empty = build_component(values, name, "empty")
            assert all(parameter.is_meta for parameter in empty.parameters())
            assert {k: v.shape for k, v in empty.state_dict().items()} == {
                k: v.shape for k, v in part.state_dict().items()
            }
            assert len(list(empty.parameters())) == len(list(part.parameters()))
        else:
            assert loaded.get_vocab() == part.get_vocab()


def test_a_half_trained_component_among_new_ones() -> None:
    preset = load_preset("tiny")
    half = build_component(preset, "transformer", trained=["transformer"])
    nn.init.constant_(half.proj_out.weight, 0.5)
    assert half.training and all(parameter.requires_grad for parameter in half.parameters())
    pipeline = build_pipeline(preset, {"transformer": half, "lq_encoder": None}, trained=["transformer"])
    assert pipeline.transformer is half and half.training and pipeline.lq_encoder is None
    assert not pipeline.connectors.training


def test_what_is_frozen_by_design_stays_so() -> None:
    tokenizer = build_component(load_preset("tiny"), "image_tokenizer", trained=["image_tokenizer"])
    frozen = {name for name, parameter in tokenizer.named_parameters() if not parameter.requires_grad}
    assert frozen == {"regularizer.embedding.weight"}  # the random codebook


def test_the_precision_of_the_weights() -> None:
    for source in ("new", "empty"):
        assert build_component(load_preset("tiny"), "transformer", source, dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("preset", [*PRESET_NAMES, PUBLISHED])
def test_the_components_of_a_preset_fit_together(preset: str) -> None:
    values = load_preset(preset)
    assert set(values.components) | set(values.optional) <= set(ORDER)
    networks = [name for name in values.components if name != "text_tokenizer"]
    parts = build_components(values, dict.fromkeys(networks, "empty"))
    connectors, transformer = parts["connectors"].config, parts["transformer"].config
    assert connectors.query_features == parts["language_model"].config.hidden_size
    assert connectors.latent_features == transformer.num_attention_heads * transformer.attention_head_dim
    assert connectors.condition_features == transformer.caption_channels
    assert transformer.out_channels == parts["autoencoder"].config.latent_channels
    assert parts["language_model"].config.vocab_size > parts["image_tokenizer"].config.codebook_size
    for name in values.optional:
        assert build_component(values, name, "empty").dtype == torch.float32


def test_the_published_classes_restore_by_the_same_path() -> None:
    pipeline = load_preset_pipeline(PUBLISHED)
    assert type(pipeline.image_tokenizer).__name__ == "TATok" and type(pipeline.autoencoder).__name__ == "AutoencoderDC"
    face = np.full((32, 32, 3), 99, np.uint8)
    restored = pipeline(face, generator=torch.Generator().manual_seed(0), output_type="np").images
    assert restored.shape == (1, 32, 32, 3) and np.isfinite(restored).all()


def changed(folder: Path, **entries: object) -> str:
    file = folder / "preset.json"
    file.write_text(json.dumps(json.loads(Path(PUBLISHED).read_text()) | entries))
    return str(file)


def test_bad_presets_are_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("nothing")
    for name in ("huge", str(tmp_path / "none.json"), str(tmp_path / "text.json")):
        with pytest.raises(InvalidInputError):
            load_preset(name)
    for entries in ({"extra": 1}, {"flow": {}}, {"components": {"transformer": {"depth": 3}}}, {"components": 3}):
        with pytest.raises(InvalidInputError):
            load_preset(changed(tmp_path, **entries))
    nobody = load_preset(changed(tmp_path, components={"transformer": {"class": "Nobody"}}))
    strange = load_preset(changed(tmp_path, components={"transformer": {"class": "InputSkip", "depth": 3}}))
    for preset, named in ((nobody, "Nobody"), (strange, "depth"), (load_preset("paper"), "lq_encoder")):
        with pytest.raises(InvalidInputError, match=named):
            build_component(preset, "lq_encoder" if preset.name == "paper" else "transformer")


def test_a_folder_without_its_component_is_refused(tmp_path: Path) -> None:
    preset: Preset = load_preset("tiny")
    for name in ("transformer", "text_tokenizer", "language_model"):
        with pytest.raises(WeightsError, match="folder"):
            build_component(preset, name, tmp_path / "nowhere")
        (tmp_path / name).mkdir()
        with pytest.raises(WeightsError, match=name):
            build_component(preset, name, tmp_path / name)
    build_component(preset, "transformer").save_config(tmp_path / "transformer")  # and no weights
    with pytest.raises(WeightsError, match="transformer"):
        build_component(preset, "transformer", tmp_path / "transformer")


def test_trainers_name_no_class_of_a_preset() -> None:
    presets = [load_preset(name) for name in PRESET_NAMES]
    named = {part.class_name for each in presets for part in (*each.components.values(), *each.optional.values())}
    word = re.compile("|".join(rf"\b{name}\b" for name in sorted({*named, *COMPONENTS})))
    found = {
        f"{path.relative_to(SOURCE)}: {name}"
        for room in ("training", "preference")
        for path in (SOURCE / room).rglob("*.py")
        for name in word.findall(path.read_text())
    }
    assert found == set()


def test_no_module_asks_which_preset_it_is() -> None:
    asks = re.compile(rf"""(?:[=!]=|\bin\b) *[(\["']+(?:{"|".join(PRESET_NAMES)})["']""")
    assert asks.search('if name == "tiny"') and asks.search("if name in ('paper',)")
    found = [str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if asks.search(path.read_text())]
    assert found == []


def test_the_weights_of_a_preset_and_what_tells_it_from_others(tmp_path: Path) -> None:
    assert weights_folder("tiny") is None and weights_folder(PUBLISHED) is None
    assert weights_folder("compact") == SOURCE / "weights" / "compact"
    assert weights_folder("tiny", tmp_path) == tmp_path
    with pytest.raises(WeightsError, match="--model"):
        weights_folder("paper")
    one = preset_identity(changed(tmp_path))
    assert preset_identity("tiny") == "tiny" and one == preset_identity(changed(tmp_path))
    assert one != preset_identity(changed(tmp_path, face_size=64))
    with pytest.raises(InvalidInputError):
        preset_identity("huge")
