"""Bad published files: one clear error each, and nothing that they hold is run."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoint import ADAPTED, ARCHITECTURE, Tiny, tokenizer_state, write_lora, write_shards
from torch import Tensor

from prefrestore.errors import WeightsError
from prefrestore.pipeline.pipeline import PrefRestorePipeline
from prefrestore.pipeline.published import loading
from prefrestore.pipeline.published.convert import convert


def load(folder: Path, **options: Any) -> PrefRestorePipeline:
    return PrefRestorePipeline.from_pretrained(folder, architecture=ARCHITECTURE, **options)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {key: value for file in sorted(folder.glob("*.safetensors")) for key, value in load_file(file).items()}


def test_a_truncated_shard(copy: Path, tmp_path: Path) -> None:
    shard = sorted(copy.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=f"{shard.name}.*truncated"):
        load(copy)
    with pytest.raises(WeightsError, match="truncated"):
        convert(copy, tmp_path / "ours", architecture=ARCHITECTURE)
    assert not list(tmp_path.glob("ours*"))


def test_a_missing_shard(copy: Path) -> None:
    shard = sorted(copy.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(WeightsError, match=f"{shard.name}.*missing"):
        load(copy)


def test_an_index_that_promises_more(copy: Path) -> None:
    index = copy / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    values["weight_map"]["model.norm.bias"] = values["weight_map"]["model.norm.weight"]
    index.write_text(json.dumps(values))
    with pytest.raises(WeightsError, match=r"model\.norm\.bias"):
        load(copy)
    index.write_text("{")
    with pytest.raises(WeightsError, match="index"):
        load(copy)


@pytest.mark.parametrize(
    ("key", "change", "told"),
    [
        ("model.layers.1.mlp.up_proj.weight", None, r"1 missing: language_model: model\.layers\.1\.mlp\.up_proj"),
        ("lm_head.weight", None, r"missing: language_model: lm_head\.weight"),
        ("model.sana.proj_out.weight", None, r"missing: transformer: proj_out\.weight"),
        ("model.vae_connector.2.weight", None, r"missing: connectors: vae_connector\.2\.weight"),
        ("model.diffusion_connector.3.weight", None, r"2 missing: connectors"),
        ("model.sana_vae.encoder.conv_in.extra", lambda t: torch.ones(3), r"unexpected: model\.sana_vae\.encoder"),
        ("model.mystery.weight", lambda t: torch.ones(3), r"unexpected: model\.mystery\.weight"),
        ("model.sana.proj_out.weight", lambda t: t[:, :3], r"shape: model\.sana\.proj_out\.weight \(is \[4, 3\], not"),
        ("model.norm.weight", lambda t: t.to(torch.int32), r"not floats: model\.norm\.weight \(I32\)"),
        ("model.norm.weight", lambda t: t.double(), r"not floats: model\.norm\.weight \(F64\)"),
        ("model.vision_tower.vision_tower.bottleneck.regularizer.embedding.weight", None, "codebook"),
    ],
)
def test_a_key_that_does_not_fit(
    copy: Path, key: str, change: Callable[[Tensor | None], Tensor] | None, told: str
) -> None:
    tensors = tensors_of(copy)
    before = tensors.pop(key, None)
    if change is not None:
        tensors[key] = change(before)
    write_shards(copy, tensors, 2)
    with pytest.raises(WeightsError, match=told):
        load(copy)


def test_every_wrong_key_is_counted_in_one_error(copy: Path) -> None:
    tensors = tensors_of(copy)
    del tensors["lm_head.weight"]
    tensors["model.extra"] = torch.ones(1)
    tensors["model.norm.weight"] = torch.ones(5)
    write_shards(copy, tensors, 1)
    with pytest.raises(WeightsError, match=r"1 missing: .*1 unexpected: .*1 of a wrong shape"):
        load(copy)


@pytest.mark.parametrize("prefix", ["model.sana.", "model.vae_connector.", "model.vision_tower."])
def test_a_whole_part_is_missing(copy: Path, prefix: str) -> None:
    write_shards(copy, {key: value for key, value in tensors_of(copy).items() if not key.startswith(prefix)}, 2)
    with pytest.raises(WeightsError, match=f"no weights under {prefix}"):
        load(copy)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hidden_size": None}, "no hidden_size"),
        ({"rope_theta": None}, "no rope_theta"),
        ({"hidden_size": "wide"}, "language model is not valid"),
        ({"image_start_token_id": 3}, "image_start_token_id 3"),
        ({"num_image_tokens": 99}, "num_image_tokens 99"),
        ({"vocab_size": 10}, "wrong shape"),
    ],
)
def test_a_configuration_that_does_not_fit(copy: Path, change: dict[str, Any], told: str) -> None:
    values = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**values, **change}))
    with pytest.raises(WeightsError, match=told):
        load(copy)


def test_a_text_tokenizer_that_is_missing_or_damaged(copy: Path) -> None:
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="text tokenizer cannot be read"):
        load(copy)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match="text tokenizer is missing"):
        load(copy)


class Malicious:
    """Unpickling it would make a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["args", "sd", "whole"])
def test_code_in_a_pickle_is_not_run(tiny: Tiny, tmp_path: Path, zipped: bool, place: str) -> None:
    mark, file = tmp_path / "it-ran", tmp_path / "ta_tok.pth"
    evil = Malicious(mark)
    content: dict[str, Any] = {"args": {}, "sd": tokenizer_state(tiny)}
    content = {**content, "args": evil} if place == "args" else {**content, "sd": {"a": evil}}
    if place == "whole":
        file.write_bytes(pickle.dumps(evil))
    else:
        torch.save({"model": content}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="nothing in it was run"):
        loading.load_ta_tok(file, architecture=ARCHITECTURE)
    with pytest.raises(WeightsError):
        convert(file, tmp_path / "ours", architecture=ARCHITECTURE)
    assert not mark.exists()
    if place != "whole":  # the trap is a real one
        torch.load(file, weights_only=False)
        assert mark.is_dir()


def test_a_pickle_in_an_assembled_folder_is_not_even_opened(copy: Path, tmp_path: Path) -> None:
    write_shards(copy, {}, 1)
    for file in copy.glob("*.safetensors*"):
        file.unlink()
    torch.save({"a": Malicious(tmp_path / "it-ran")}, copy / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="no safetensors"):
        load(copy)
    assert not (tmp_path / "it-ran").exists()


def test_a_damaged_ta_tok(tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "ta_tok.pth"
    file.write_bytes(tiny.ta_tok.read_bytes()[:-500])
    with pytest.raises(WeightsError, match="ta_tok.pth"):
        loading.load_ta_tok(file, architecture=ARCHITECTURE)
    whole = torch.load(tiny.ta_tok, weights_only=True)
    for wrong, told in (
        ({"weights": {}}, "no entry model.sd"),
        ({"model": {"args": {}, "sd": whole["model"]["sd"]}}, "model.args"),
        ({"model": {**whole["model"], "sd": {"a": 3}}}, "not a dictionary of tensors"),
        ({"model": {**whole["model"], "sd": {}}}, "codebook"),
        ({"model": {**whole["model"], "args": {**whole["model"]["args"], "bottleneck_token_num": 9}}}, "9 tokens"),
    ):
        torch.save(wrong, file)
        with pytest.raises(WeightsError, match=told):
            loading.load_ta_tok(file, architecture=ARCHITECTURE)


def test_a_damaged_sana_folder(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.sana, tmp_path / "sana"))
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (folder / "transformer" / "config.json").write_text(json.dumps({**config, "num_layers": 3}))
    with pytest.raises(WeightsError, match="missing: transformer: transformer_blocks.2"):
        loading.load_sana(folder)
    (folder / "transformer" / "config.json").write_text(json.dumps({**config, "nonsense": 3}))
    with pytest.raises(WeightsError, match="denoiser is not valid"):
        loading.load_sana(folder)
    with pytest.raises(WeightsError, match="neither"):
        convert(tmp_path, tmp_path / "ours")


@pytest.fixture
def lora(tiny: Tiny, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.lora, tmp_path / "lora"))


def rewritten(folder: Path, **change: Any) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    return folder


def refused(tiny: Tiny, lora: Path, told: str) -> None:
    """By loading and by converting; a base model is never used in place of an aligned one."""
    with pytest.raises(WeightsError, match=told):
        load(tiny.assembled, lora=lora)
    with pytest.raises(WeightsError, match=told):
        convert(tiny.assembled, lora.parent / "ours", lora=lora, architecture=ARCHITECTURE)
    assert not list(lora.parent.glob("ours*"))


def test_a_missing_adapter(tiny: Tiny, tmp_path: Path, copy: Path) -> None:
    refused(tiny, tmp_path / "nothing", "adapter_config.json.*missing")
    (copy / "lora").mkdir()  # it should have one
    with pytest.raises(WeightsError, match="missing"):
        load(copy)


def test_an_adapter_of_the_wrong_rank(tiny: Tiny, lora: Path) -> None:
    refused(tiny, rewritten(lora, r=8), r"not of rank 8.*attn1\.to_q")


def test_an_adapter_with_other_targets(tiny: Tiny, lora: Path) -> None:
    refused(tiny, rewritten(lora, target_modules=ADAPTED[:4]), r"unexpected: .*attn2")
    refused(tiny, rewritten(lora, target_modules=[*ADAPTED, "attn3.to_q"]), r"no attn3\.to_q")
    refused(tiny, rewritten(lora, target_modules=[*ADAPTED, "caption_projection.linear_1"]), "missing: .*caption_proj")


def test_an_adapter_of_another_denoiser_or_kind(tiny: Tiny, lora: Path) -> None:
    file = lora / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(key for key in tensors if "lora_A" in key)
    save_file({**tensors, key: torch.ones(4, 3)}, file)
    refused(tiny, lora, "of another shape")
    save_file({**tensors, key: tensors[key].int()}, file)
    refused(tiny, lora, "not floats")
    save_file(tensors, file)
    refused(tiny, rewritten(lora, use_dora=True), "use_dora")
    refused(tiny, rewritten(lora, use_dora=False, peft_type="IA3"), "LoRA")
    file.write_bytes(file.read_bytes()[:-10])
    refused(tiny, rewritten(lora, peft_type="LORA"), "truncated")


def test_the_writer_s_adapter_of_another_rank_is_fine_when_it_says_so(tiny: Tiny, tmp_path: Path) -> None:
    torch.manual_seed(0)
    write_lora(tmp_path / "lora", tiny.transformer, rank=2)
    assert load(tiny.assembled, lora=tmp_path / "lora") is not None
