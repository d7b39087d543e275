"""From a preset to a pipeline: random weights for tests and for starting to train, or the bundled ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from prefrestore.files.weights import bundled_folder, folder_hashes, verify
from prefrestore.pipeline.presets import Preset, load_preset

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

    from prefrestore.pipeline.pipeline import PrefRestorePipeline

ADAPTER = "preference"
"""Where a pipeline folder keeps its preference adapter."""

_WORDS = ("A man with grey hair looks at the camera.", "A young woman with dark hair smiles in front of a wall.")


def new_text_tokenizer(preset: Preset, captions: Sequence[str]) -> PreTrainedTokenizerFast:
    """The preset's text tokenizer, its merges learnt from ``captions``."""
    from prefrestore.models.semantic.instruction import train_text_tokenizer

    codes = preset.image_tokenizer["codebook_size"]
    return train_text_tokenizer(captions, codebook_size=codes, **preset.text_tokenizer)


def new_language_model(preset: Preset, vocabulary_size: int, *, seed: int) -> Qwen3ForCausalLM:
    """The preset's language model with random weights."""
    from transformers import Qwen3Config

    from prefrestore.models.semantic.integrator import build_language_model

    config = Qwen3Config(vocab_size=vocabulary_size, **preset.language_model)
    return build_language_model(config, torch.Generator().manual_seed(seed))


def random_pipeline(preset: Preset, *, seed: int = 0, captions: Sequence[str] = _WORDS) -> PrefRestorePipeline:
    """A pipeline with the preset's architecture and random weights; ``captions`` train its text tokenizer.

    The global generator is used to draw the layers' first weights and then put back as it was.
    """
    from diffusers import SanaTransformer2DModel

    from prefrestore.models.semantic.tokenizer import SemanticTokenizer
    from prefrestore.models.texture.autoencoder import ResidualAutoencoder
    from prefrestore.models.texture.conditioning import Connectors
    from prefrestore.models.texture.lq_encoder import LatentEncoder
    from prefrestore.pipeline.pipeline import PrefRestorePipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        image_tokenizer = SemanticTokenizer(**preset.image_tokenizer)
        text_tokenizer = new_text_tokenizer(preset, captions)
        language_model = new_language_model(preset, len(text_tokenizer), seed=seed)
        autoencoder = ResidualAutoencoder(**preset.autoencoder)
        lq_encoder = LatentEncoder(**preset.lq_encoder)
        transformer = SanaTransformer2DModel(**preset.transformer)
        connectors = Connectors(
            language_model.config.hidden_size,
            preset.transformer["num_attention_heads"] * preset.transformer["attention_head_dim"],
            preset.transformer["caption_channels"],
        )
    parts = (image_tokenizer, language_model, autoencoder, lq_encoder, transformer, connectors)
    for part in parts:
        part.eval().requires_grad_(False)
    return PrefRestorePipeline(
        image_tokenizer=image_tokenizer,
        text_tokenizer=text_tokenizer,
        language_model=language_model,
        connectors=connectors,
        autoencoder=autoencoder,
        lq_encoder=lq_encoder,
        transformer=transformer,
        **preset.pipeline_config(),
    )


def load_preset_pipeline(
    name: str = "compact",
    *,
    folder: Path | str | None = None,
    dtype: torch.dtype = torch.float32,
    preference: bool | Path = True,
) -> PrefRestorePipeline:
    """The pipeline of a preset: ``compact`` with the bundled weights, ``tiny`` with random ones for tests.

    With its preference adapter, where the folder has one (``preference/``, covered by the recorded hashes).

    Args:
        name: a preset.
        folder: a pipeline folder in place of the bundled weights; its hashes are checked when it records them.
        dtype: of the weights in memory; the files are half precision.
        preference: False leaves the adapter out: the base model. A path is the folder of another adapter.

    Raises:
        InvalidInputError: no such preset.
        WeightsError: the weights are missing, or differ from their recorded hashes.
    """
    from prefrestore.models.adapter import adapter_folder, load_adapter
    from prefrestore.pipeline.pipeline import PrefRestorePipeline

    preset = load_preset(name)
    other = preference if isinstance(preference, Path) else None
    if folder is None and name == "tiny":
        pipeline, hashes = random_pipeline(preset).to(dtype), {}
    else:
        path = bundled_folder(name) if folder is None else Path(folder)
        hashes = verify(path)
        pipeline = PrefRestorePipeline.from_pretrained(path, dtype=dtype, local_files_only=True, preference=False)
        if preference is True and (path / ADAPTER).is_dir():
            other = path / ADAPTER
    hashes = {key: value for key, value in hashes.items() if not key.startswith(f"{ADAPTER}/")}
    if other is not None:
        other = adapter_folder(other)
        load_adapter(pipeline.transformer, other)
        torch.nn.Module.to(pipeline.transformer, dtype)  # diffusers' own tells users of an empty list
        hashes |= {f"{ADAPTER}/{key}": value for key, value in folder_hashes(other).items()}
    pipeline.weight_hashes = {key: value for key, value in hashes.items() if key.endswith(".safetensors")}
    return pipeline
