"""Every route into the package: assembled folder, hub id, adapter, TA-Tok alone, SANA alone, and conversion of each."""

import json
import shutil
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_checkpoint import ARCHITECTURE, Tiny, tokenizer_state
from torch import Tensor

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.files.weights import verify
from prefrestore.models.adapter import using_adapter
from prefrestore.models.semantic.ta_tok import SimVQCodebook, TATok
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.pipeline.components import build_components
from prefrestore.pipeline.pipeline import PrefRestorePipeline
from prefrestore.pipeline.presets import load_preset
from prefrestore.pipeline.published import loading
from prefrestore.pipeline.published.components import Architecture
from prefrestore.pipeline.published.convert import convert
from prefrestore.pipeline.published.tensors import SafetensorsFolder


def quiet(_: str) -> None:
    pass


def denoised(pipe: PrefRestorePipeline) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 8, 8, generator=generator)
    condition = torch.randn(1, 9, 24, generator=generator)
    with torch.no_grad():
        return pipe.transformer(x, encoder_hidden_states=condition, timestep=torch.tensor([500.0]))[0]


@pytest.fixture(scope="module")
def pipeline(tiny: Tiny) -> PrefRestorePipeline:
    return PrefRestorePipeline.from_pretrained(tiny.assembled, architecture=ARCHITECTURE)


def by_hand(tiny: Tiny) -> Tensor:
    """The denoiser's answer with alpha / r * B A added to the weights of its attention."""
    from diffusers import SanaTransformer2DModel

    state = dict(tiny.transformer.state_dict())
    factors = load_file(tiny.lora / "adapter_model.safetensors")
    alpha, rank = 8, 4
    for key in [key for key in factors if "lora_A" in key]:
        name = key.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
        state[name] = state[name] + alpha / rank * factors[key.replace("lora_A", "lora_B")] @ factors[key]
    changed = SanaTransformer2DModel.from_config(tiny.transformer.config).eval()
    changed.load_state_dict(state)
    return denoised(type("Pipe", (), {"transformer": changed}))  # type: ignore[arg-type]


def test_the_adapter_changes_the_weights_as_it_says(tiny: Tiny, pipeline: PrefRestorePipeline) -> None:
    tuned = PrefRestorePipeline.from_pretrained(tiny.assembled, architecture=ARCHITECTURE, lora=tiny.lora)
    expected = by_hand(tiny)
    assert torch.allclose(denoised(tuned), expected, atol=1e-4)
    assert not torch.allclose(denoised(pipeline), expected, atol=1e-2)
    with using_adapter(tuned.transformer, None):
        assert torch.equal(denoised(tuned), denoised(pipeline))


def test_an_adapter_in_the_folder_itself_is_used(tiny: Tiny, copy: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny.lora, copy / "lora")
    tuned = PrefRestorePipeline.from_pretrained(copy, architecture=ARCHITECTURE)
    assert torch.allclose(denoised(tuned), by_hand(tiny), atol=1e-4)
    convert(copy, tmp_path / "ours", architecture=ARCHITECTURE, log=quiet)
    record = verify(tmp_path / "ours")
    assert "preference/adapter_model.safetensors" in record
    for ours in (
        load_preset_pipeline("paper", folder=tmp_path / "ours"),
        PrefRestorePipeline.from_pretrained(tmp_path / "ours"),
    ):
        assert torch.allclose(denoised(ours), by_hand(tiny), atol=1e-4)
    base = denoised(PrefRestorePipeline.from_pretrained(tiny.assembled, architecture=ARCHITECTURE))
    for folder in (copy, tmp_path / "ours"):
        more = {"architecture": ARCHITECTURE} if folder == copy else {}
        without = PrefRestorePipeline.from_pretrained(folder, preference=False, **more)
        assert torch.equal(denoised(without), base)


def test_half_precision_holds_for_every_part(tiny: Tiny) -> None:
    pipe = PrefRestorePipeline.from_pretrained(
        tiny.assembled, architecture=ARCHITECTURE, lora=tiny.lora, torch_dtype=torch.bfloat16
    )
    for part in ("image_tokenizer", "language_model", "connectors", "transformer", "autoencoder"):
        dtypes = {parameter.dtype for parameter in getattr(pipe, part).parameters()}
        assert dtypes == {torch.bfloat16}, part
    assert not any(parameter.requires_grad for parameter in pipe.transformer.parameters())


def test_a_hub_id_leads_to_the_same_weights(tiny: Tiny, pipeline: PrefRestorePipeline, tmp_path: Path) -> None:
    """The hub's cache as huggingface_hub lays it out, so that nothing is fetched."""
    cached = tmp_path / "models--someone--assembled"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0123abc")
    shutil.copytree(tiny.assembled, cached / "snapshots" / "0123abc")
    pipe = PrefRestorePipeline.from_pretrained(
        "someone/assembled", architecture=ARCHITECTURE, cache_dir=tmp_path, local_files_only=True
    )
    assert torch.equal(denoised(pipe), denoised(pipeline))


def test_ta_tok_alone_is_the_assembled_model_s(tiny: Tiny, pipeline: PrefRestorePipeline, tmp_path: Path) -> None:
    tokenizer = loading.load_ta_tok(tiny.ta_tok, architecture=ARCHITECTURE)
    images = torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = pipeline.image_tokenizer.encode(images)
    assert expected.shape == (2, 16) and torch.equal(tokenizer.encode(images), expected)
    convert(tiny.ta_tok, tmp_path / "parts", architecture=ARCHITECTURE, log=quiet)
    saved = TATok.from_pretrained(tmp_path / "parts" / "image_tokenizer")
    assert torch.equal(saved.encode(images), expected)
    assert "image_tokenizer/diffusion_pytorch_model.safetensors" in verify(tmp_path / "parts")
    saved.save_pretrained(tmp_path / "again")
    assert torch.equal(TATok.from_pretrained(tmp_path / "again").encode(images), expected)
    with pytest.raises(InvalidInputError, match="56"):
        saved.encode(images[..., :28])


def test_sana_alone_is_the_assembled_model_s(tiny: Tiny, tmp_path: Path) -> None:
    transformer, autoencoder = loading.load_sana(tiny.sana)
    for module, expected in ((transformer, tiny.transformer), (autoencoder, tiny.autoencoder)):
        assert all(module.config[key] == value for key, value in expected.config.items() if key[0] != "_")
        for name, value in expected.state_dict().items():
            assert torch.equal(module.state_dict()[name], value)
    convert(tiny.sana, tmp_path / "parts", log=quiet)
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {"transformer", "autoencoder", "hashes.json"}


@pytest.mark.parametrize("l2_normalized", [True, False])
def test_the_nearest_code_whatever_the_chunk(l2_normalized: bool) -> None:
    torch.manual_seed(0)
    book = SimVQCodebook(50, 6, l2_normalized)
    features = torch.randn(2, 7, 6)
    codes = book.embedding_proj(book.embedding.weight)
    if l2_normalized:
        distance = -torch.cosine_similarity(features[:, :, None], codes, dim=-1)
    else:
        distance = (features[:, :, None] - codes).norm(dim=-1)
    for chunk in (7, 50, 1000):
        assert torch.equal(book.nearest(features, chunk), distance.argmin(-1))


def test_conversion_writes_small_shards_and_every_tensor(tiny: Tiny, tmp_path: Path) -> None:
    told: list[str] = []
    destination = tmp_path / "deep" / "ours"
    convert(tiny.assembled, destination, architecture=ARCHITECTURE, shard_bytes=20_000, log=told.append)
    verify(destination)
    assert not (tmp_path / "deep" / "ours.part").exists()
    shards = sorted((destination / "language_model").glob("*.safetensors"))
    assert len(shards) > 2
    largest = max(tensor.numel() * 4 for tensor in tiny.language_model.state_dict().values())
    assert all(file.stat().st_size < max(20_000, largest) + 4_000 for file in shards)
    held: dict[str, Tensor] = {}
    for file in shards:
        with safe_open(file, framework="pt") as content:
            held.update({key: content.get_tensor(key) for key in content.keys()})
    for name, value in tiny.language_model.state_dict().items():
        assert torch.equal(held[name], value)
    assert any("language_model" in line for line in told)
    with pytest.raises(InvalidInputError, match="exists"):
        convert(tiny.assembled, destination, architecture=ARCHITECTURE, log=quiet)


def test_conversion_holds_one_shard_in_memory(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of all tensors that were read and are still alive, whenever another one is read."""
    alive, most = [0], [0]
    read = SafetensorsFolder.read

    def counted(self: SafetensorsFolder, keys: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        for key, tensor in read(self, keys):
            alive[0] += tensor.nbytes
            most[0] = max(most[0], alive[0])
            weakref.finalize(tensor, lambda size: alive.__setitem__(0, alive[0] - size), tensor.nbytes)
            yield key, tensor

    monkeypatch.setattr(SafetensorsFolder, "read", counted)
    convert(tiny.assembled, tmp_path / "ours", architecture=ARCHITECTURE, shard_bytes=20_000, log=quiet)
    largest = max(tensor.nbytes for tensor in tokenizer_state(tiny).values())  # a shard of its own
    assert 0 < most[0] <= max(20_000, largest)
    assert sum(file.stat().st_size for file in (tmp_path / "ours").rglob("*.safetensors")) > 5 * most[0]


def test_the_command_converts_and_says_so(tiny: Tiny, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from prefrestore.cli import app

    file = tmp_path / "architecture.json"
    file.write_text(json.dumps(vars(ARCHITECTURE)))
    command = ["convert", str(tiny.assembled), str(tmp_path / "ours"), "--lora", str(tiny.lora)]
    ran = CliRunner().invoke(app, [*command, "--architecture", str(file)])
    assert ran.exit_code == 0, ran.output
    assert "hashes recorded" in ran.output
    assert (tmp_path / "ours" / "preference" / "adapter_config.json").is_file()


def test_a_tokenizer_without_its_fast_file_gives_the_same_ids(tiny: Tiny, copy: Path) -> None:
    whole = loading.open_assembled(copy, ARCHITECTURE).text_tokenizer
    state = json.loads((copy / "tokenizer.json").read_text())
    (copy / "vocab.json").write_text(json.dumps(state["model"]["vocab"]))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in state["model"]["merges"]]
    (copy / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    added = {token["content"]: token["id"] for token in state["added_tokens"]}
    (copy / "added_tokens.json").write_text(json.dumps(added))
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "Qwen2Tokenizer"
    settings["added_tokens_decoder"] = {str(i): {"content": token, "special": True} for token, i in added.items()}
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    (copy / "tokenizer.json").unlink()
    slow = loading.open_assembled(copy, ARCHITECTURE).text_tokenizer
    text = "<|im_start|>user\n<I3><I4>\nPlease reconstruct the given image: 63, Élodie.<|im_end|>"
    assert whole is not None and slow is not None
    assert slow(text)["input_ids"] == whole(text)["input_ids"]


def test_the_paper_s_architecture_is_the_published_one() -> None:
    """Shapes that the description of the published files names."""
    names = ("image_tokenizer", "autoencoder", "transformer")
    tokenizer, parts, denoiser = build_components(load_preset("paper"), dict.fromkeys(names, "empty")).values()
    assert tokenizer.num_tokens == 729 and tokenizer.encoder.config.num_hidden_layers == 26
    assert parts.spatial_compression_ratio == 32 and parts.config.scaling_factor == 0.41407
    assert denoiser.patch_embed.proj.weight.shape == (2240, 32, 1, 1)
    assert denoiser.caption_projection.linear_1.weight.shape[1] == 2304
    assert load_preset("paper").flow.start == "noise" and load_preset("paper").flow.noise_scale == 1


def test_options_that_mean_nothing_are_refused(tiny: Tiny) -> None:
    with pytest.raises(InvalidInputError, match="variant"):
        PrefRestorePipeline.from_pretrained(tiny.assembled, architecture=ARCHITECTURE, variant="fp16")
    with pytest.raises(InvalidInputError, match="lora"):
        PrefRestorePipeline.from_pretrained(tiny.sana, lora=tiny.lora)
    with pytest.raises(InvalidInputError, match="adapter"):
        convert(tiny.sana, tiny.sana.parent / "never", lora=tiny.lora, log=quiet)


def test_a_file_of_other_arguments(tmp_path: Path) -> None:
    file = tmp_path / "architecture.json"
    file.write_text('{"face_size": 1024}')
    assert Architecture.read(file).face_size == 1024
    assert Architecture.read(file).transformer == Architecture.paper().transformer
    file.write_text('{"faces": 1024}')
    with pytest.raises(WeightsError, match="faces"):
        Architecture.read(file)
