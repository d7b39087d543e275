"""Folders as the published training saves them, with what only training used: load, convert and restore from each."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_checkpoint import ARCHITECTURE, Tiny, tokenizer_state
from torch import Tensor
from training_folders import SAVED, TRAINING_ONLY, everything, one_token_more, rewrite, tokenizer_of_training
from transformers import Qwen2Tokenizer

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.models.semantic.instruction import build_chats
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.pipeline.pipeline import PrefRestorePipeline
from prefrestore.pipeline.published import loading
from prefrestore.pipeline.published.convert import convert


def restored(pipeline: PrefRestorePipeline) -> Tensor:
    face = Image.fromarray(np.random.default_rng(3).integers(0, 256, (50, 40, 3), dtype=np.uint8))
    return pipeline(face, prompt="grey hair", num_inference_steps=2, output_type="pt").images


def same(one: Tensor, other: Tensor) -> bool:
    """To rounding, which depends on how the weights lie in memory."""
    return torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("save", SAVED)
def test_a_folder_of_the_training_restores_as_the_plain_one(
    tiny: Tiny, copy: Path, tmp_path: Path, save: Callable[[Path], None]
) -> None:
    expected = restored(PrefRestorePipeline.from_pretrained(tiny.assembled, architecture=ARCHITECTURE))
    save(copy)
    assert same(restored(PrefRestorePipeline.from_pretrained(copy, architecture=ARCHITECTURE)), expected)
    told: list[str] = []
    convert(copy, tmp_path / "ours", architecture=ARCHITECTURE, log=told.append)
    assert same(restored(load_preset_pipeline("paper", folder=tmp_path / "ours")), expected)
    assert any("fixed_vae" in line for line in told) == (save not in (one_token_more, tokenizer_of_training))


def test_a_truncated_shard_of_such_a_folder_is_refused(copy: Path, tmp_path: Path) -> None:
    everything(copy)
    rewrite(copy, {}, 4)
    shard = sorted(copy.glob("*.safetensors"))[2]
    shard.write_bytes(shard.read_bytes()[:-64])
    with pytest.raises(WeightsError, match=f"{shard.name}.*truncated"):
        PrefRestorePipeline.from_pretrained(copy, architecture=ARCHITECTURE)
    with pytest.raises(WeightsError, match="truncated"):
        convert(copy, tmp_path / "ours", architecture=ARCHITECTURE)


def test_the_extra_token_is_never_looked_up(copy: Path) -> None:
    one_token_more(copy)
    pipeline = PrefRestorePipeline.from_pretrained(copy, architecture=ARCHITECTURE)
    rows = pipeline.language_model.config.vocab_size
    chats = build_chats(pipeline.text_tokenizer, torch.zeros(1, 16, dtype=torch.long), ["grey hair"])
    assert len(pipeline.text_tokenizer) == rows + 1 and int(chats.input_ids.max()) < rows
    with pytest.raises(InvalidInputError, match="<image>"):
        build_chats(pipeline.text_tokenizer, torch.zeros(1, 16, dtype=torch.long), ["an <image>"])


def test_another_token_without_a_row_is_refused(copy: Path) -> None:
    one_token_more(copy)
    tokenizer = Qwen2Tokenizer.from_pretrained(copy)
    tokenizer.add_tokens(["<video>"], special_tokens=True)
    tokenizer.save_pretrained(copy)
    with pytest.raises(WeightsError, match="none for the token <video>"):
        loading.open_assembled(copy, ARCHITECTURE)


def test_a_ta_tok_file_of_the_training(tiny: Tiny, tmp_path: Path) -> None:
    whole = torch.load(tiny.ta_tok, weights_only=True)
    whole["model"]["sd"].update(TRAINING_ONLY)
    torch.save(whole, tmp_path / "ta_tok.pth")
    tokenizer = loading.load_ta_tok(tmp_path / "ta_tok.pth", architecture=ARCHITECTURE)
    plain = loading.load_ta_tok(tiny.ta_tok, architecture=ARCHITECTURE)
    images = torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(tokenizer.encode(images), plain.encode(images))
    convert(tmp_path / "ta_tok.pth", tmp_path / "parts", architecture=ARCHITECTURE, log=lambda _: None)
    assert not {key for key in tokenizer_state(tiny) if key.startswith("teacher")}


def test_an_adapter_by_the_training_s_checkpoint_folder(tiny: Tiny, copy: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint-180"
    shutil.copytree(tiny.lora, checkpoint / "lora")
    (checkpoint / "old").mkdir()
    (checkpoint / "old" / "adapter_model.safetensors").write_bytes(b"not read")
    expected = restored(PrefRestorePipeline.from_pretrained(copy, architecture=ARCHITECTURE, lora=tiny.lora))
    base = restored(PrefRestorePipeline.from_pretrained(copy, architecture=ARCHITECTURE))
    named = PrefRestorePipeline.from_pretrained(copy, architecture=ARCHITECTURE, lora=checkpoint)
    assert same(restored(named), expected) and not same(base, expected)
    convert(copy, tmp_path / "ours", lora=checkpoint, architecture=ARCHITECTURE, log=lambda _: None)
    assert same(restored(load_preset_pipeline("paper", folder=tmp_path / "ours")), expected)
    convert(copy, tmp_path / "base", architecture=ARCHITECTURE, log=lambda _: None)
    ours = load_preset_pipeline("paper", folder=tmp_path / "base", preference=checkpoint)
    assert same(restored(ours), expected)
    assert "preference/adapter_model.safetensors" in ours.weight_hashes
    shutil.rmtree(checkpoint / "lora")
    with pytest.raises(WeightsError, match="missing"):
        PrefRestorePipeline.from_pretrained(copy, architecture=ARCHITECTURE, lora=checkpoint)
