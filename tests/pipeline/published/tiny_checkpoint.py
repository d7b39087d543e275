"""Random checkpoints in every published format (assembled model, ``ta_tok.pth``, SANA folder, adapter), very small."""

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, SanaTransformer2DModel
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM, SiglipVisionConfig, SiglipVisionModel

from prefrestore.pipeline.published.components import Architecture

CODES, CODE_DIM, ROPE_THETA, FACE = 48, 12, 5000.0, 32
TOKENIZER = {
    "image_size": 56,
    "patch_size": 14,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
AUTOENCODER = {
    "latent_channels": 4,
    "attention_head_dim": 4,
    "encoder_block_types": ["ResBlock", "ResBlock", "EfficientViTBlock"],
    "decoder_block_types": ["ResBlock", "ResBlock", "EfficientViTBlock"],
    "encoder_block_out_channels": [8, 8, 16],
    "decoder_block_out_channels": [8, 8, 16],
    "encoder_layers_per_block": [1, 1, 1],
    "decoder_layers_per_block": [1, 1, 1],
    "encoder_qkv_multiscales": [[], [], [5]],
    "decoder_qkv_multiscales": [[], [], [5]],
    "downsample_block_type": "Conv",
    "upsample_block_type": "interpolate",
    "scaling_factor": 0.41407,
}
TRANSFORMER = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_layers": 2,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 8,
    "cross_attention_dim": 16,
    "caption_channels": 24,
    "mlp_ratio": 2.0,
    "sample_size": 8,
    "patch_size": 1,
}
LANGUAGE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "tie_word_embeddings": False,
}
ARCHITECTURE = Architecture(
    image_tokenizer=TOKENIZER, transformer=TRANSFORMER, autoencoder=AUTOENCODER, face_size=FACE
)
ADAPTED = [f"{attention}.{layer}" for attention in ("attn1", "attn2") for layer in ("to_q", "to_k", "to_v", "to_out.0")]


def preset() -> dict[str, Any]:
    """The preset ``paper`` with these widths."""
    values = json.loads((resources.files("prefrestore.pipeline") / "configs" / "paper.json").read_text())
    for name, arguments in (
        ("image_tokenizer", TOKENIZER | {"select_layer": -2, "codebook_size": CODES, "code_dim": CODE_DIM}),
        ("text_tokenizer", {"text_vocabulary": 300, "max_length": 400}),
        ("language_model", LANGUAGE),
        ("autoencoder", AUTOENCODER),
        ("transformer", TRANSFORMER | {"qk_norm": "rms_norm_across_heads"}),
        ("connectors", {"query_features": 32, "latent_features": 16, "condition_features": 24}),
    ):
        values["components"][name] = {"class": values["components"][name]["class"], **arguments}
    return values | {"face_size": FACE, "name": "tiny-paper"}


@dataclass(frozen=True)
class Tiny:
    """Where the files are, and the modules whose weights they hold."""

    assembled: Path
    ta_tok: Path
    sana: Path
    lora: Path
    vision: SiglipVisionModel
    rest: dict[str, Tensor]  # TA-Tok beside the vision encoder, by its own names
    language_model: Qwen3ForCausalLM
    connectors: dict[str, Tensor]
    transformer: SanaTransformer2DModel
    autoencoder: AutoencoderDC


def write_all(folder: Path, seed: int = 0) -> Tiny:
    """Write every format into ``folder``, all holding the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = text_tokenizer()
        vision, rest = image_tokenizer()
        config = language_config(len(tokenizer) + 5)  # a padded table, as published ones are
        tiny = Tiny(
            assembled=folder / "assembled",
            ta_tok=folder / "ta_tok.pth",
            sana=folder / "sana",
            lora=folder / "preference-lora",
            vision=vision,
            rest=rest,
            language_model=livened(Qwen3ForCausalLM(config), 0.3),
            connectors=connector_weights(config.hidden_size),
            transformer=livened(SanaTransformer2DModel(**TRANSFORMER, qk_norm="rms_norm_across_heads"), 0.1),
            autoencoder=livened(AutoencoderDC(**AUTOENCODER), 0.05),
        )
        write_assembled(tiny, tokenizer)
        write_ta_tok(tiny)
        tiny.transformer.save_pretrained(tiny.sana / "transformer")
        tiny.autoencoder.save_pretrained(tiny.sana / "vae")
        (tiny.sana / "scheduler").mkdir()
        (tiny.sana / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "DPMSolverMultistepScheduler"}')
        write_lora(tiny.lora, tiny.transformer)
    return tiny


def livened(module: Any, scale: float) -> Any:
    """The module with noise on every weight: nothing is zero or one, so every key matters."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return module.eval().requires_grad_(False)


def text_tokenizer() -> Qwen2Tokenizer:
    """Qwen2's kind, with the chat's tokens and the image tokens, but no token ``<image>``."""
    backend = Tokenizer(models.BPE())
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(["Please reconstruct the given image.", "You are a helpful assistant."] * 20, trainer)
    state = json.loads(backend.to_str())["model"]
    tokenizer = Qwen2Tokenizer(vocab=state["vocab"], merges=[tuple(pair) for pair in state["merges"]])
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<im_start>", "<im_end>", "<S0>", "<S1>", "<S2>"]
    images = [f"<I{index}>" for index in range(CODES)]
    tokenizer.add_tokens([*specials, *images], special_tokens=True)
    return tokenizer


def image_tokenizer() -> tuple[SiglipVisionModel, dict[str, Tensor]]:
    """The vision encoder, and the other tensors of TA-Tok, the ones that tokenizing does not need included."""
    width = TOKENIZER["hidden_size"]

    def linear(name: str, inputs: int, outputs: int) -> dict[str, Tensor]:
        layer = nn.Linear(inputs, outputs)
        return {f"{name}.weight": layer.weight.detach(), f"{name}.bias": layer.bias.detach()}

    rest = {
        **linear("encode_task_layer.0", width, width),
        **linear("decode_task_layer.0", width, width),
        **linear("decode_task_layer.2", width, width),
        **linear("decoder.blocks.0.attn", width, width),
        **linear("bottleneck.in_linear", width, CODE_DIM),
        **linear("bottleneck.out_linear", CODE_DIM, CODE_DIM),
        "bottleneck.regularizer.embedding.weight": torch.randn(CODES, CODE_DIM),
        **linear("bottleneck.regularizer.embedding_proj", CODE_DIM, CODE_DIM),
        # Whatever the file says, these do nothing.
        "scale_layer.shift": torch.full((1, 3, 1, 1), 7.0),
        "scale_layer.scale": torch.full((1, 3, 1, 1), 3.0),
    }
    return livened(SiglipVisionModel(SiglipVisionConfig(**TOKENIZER)), 0.1), rest


def language_config(rows: int) -> Qwen3Config:
    """Grouped queries, rotary base of its own, no tied head."""
    return Qwen3Config(
        vocab_size=rows,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        **LANGUAGE,
    )


def connector_weights(query_features: int) -> dict[str, Tensor]:
    """Both connectors by the file's names, around one norm."""
    inner = TRANSFORMER["num_attention_heads"] * TRANSFORMER["attention_head_dim"]
    out = TRANSFORMER["caption_channels"]
    weights = {}
    for name, inputs in (("diffusion_connector", query_features), ("vae_connector", inner)):
        for place, features in ((0, inputs), (2, out)):
            weights[f"{name}.{place}.weight"] = torch.randn(out, features) * features**-0.5
            weights[f"{name}.{place}.bias"] = torch.randn(out) * 0.1
    weights["diffusion_connector.3.weight"] = 5.5**0.5 + 0.1 * torch.randn(out)
    return weights


def tokenizer_state(tiny: Tiny) -> dict[str, Tensor]:
    """TA-Tok's tensors by its own names."""
    return {**{f"encoder.{name}": value for name, value in tiny.vision.state_dict().items()}, **tiny.rest}


def write_assembled(tiny: Tiny, tokenizer: Qwen2Tokenizer, shards: int = 3) -> None:
    """The assembled model: config.json, shards with an index, and the text tokenizer."""
    folder = tiny.assembled
    tokenizer.save_pretrained(folder)
    tensors = dict(tiny.language_model.state_dict())
    parts = (
        ("model.vision_tower.vision_tower.", tokenizer_state(tiny)),
        ("model.sana.", tiny.transformer.state_dict()),
        ("model.sana_vae.", tiny.autoencoder.state_dict()),
        ("model.", tiny.connectors),
    )
    for prefix, state in parts:
        tensors.update({prefix + name: value for name, value in state.items()})
    write_shards(folder, tensors, shards)
    values = tiny.language_model.config.to_dict()
    del values["rope_parameters"]
    first = tokenizer.convert_tokens_to_ids("<I0>")
    values.update(
        {
            "architectures": ["blip3oQwenForInferenceLM"],
            "model_type": "blip3o_qwen_inference",
            "rope_theta": ROPE_THETA,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0},
            "mm_vision_tower": "/nowhere/ta_tok.pth",
            "diffusion_name_or_path": "/nowhere/SANA",
            "image_start_tag_id": tokenizer.convert_tokens_to_ids("<im_start>"),
            "image_end_tag_id": tokenizer.convert_tokens_to_ids("<im_end>"),
            "scale_start_token_id": tokenizer.convert_tokens_to_ids("<S0>"),
            "scale_end_token_id": tokenizer.convert_tokens_to_ids("<S2>"),
            "num_scale_tokens": 3,
            "image_start_token_id": first,
            "image_end_token_id": first + CODES - 1,
            "num_image_tokens": CODES,
            "mm_use_im_start_end": False,
            "mm_patch_merge_type": "flat",
            "tokenizer_padding_side": "right",
            "tokenizer_model_max_length": 400,
        }
    )
    (folder / "config.json").write_text(json.dumps(values, indent=2))


def write_shards(folder: Path, tensors: dict[str, Tensor], shards: int) -> None:
    """``model-*.safetensors`` and their index, in place of those that are there."""
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    names = sorted(tensors)
    weight_map = {}
    for index in range(shards):
        file = f"model-{index + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name].clone().contiguous() for name in names[index::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    index_file = folder / "model.safetensors.index.json"
    index_file.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_ta_tok(tiny: Tiny) -> None:
    """``ta_tok.pth``: arguments and state in nested dictionaries."""
    regularizer = {"codebook_size": CODES, "l2_normalized": True, "stochastic": True}
    arguments = {
        "bottleneck": {"args": {"bottleneck_dim": CODE_DIM, "regularizer": {"args": regularizer}}},
        "bottleneck_token_num": 16,
        "input_size": 56,
        "teacher": "google/siglip2-so400m-patch14-384",
        "select_layer_id": -2,
    }
    torch.save({"model": {"args": arguments, "sd": tokenizer_state(tiny)}}, tiny.ta_tok)


def write_lora(folder: Path, transformer: nn.Module, rank: int = 4) -> None:
    """A PEFT folder whose change is not zero."""
    folder.mkdir()
    tensors = {}
    for name, module in transformer.named_modules():
        if name.endswith(tuple(f".{target}" for target in ADAPTED)):
            rows, columns = module.weight.shape  # type: ignore[union-attr]
            tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(rank, columns) * 0.3
            tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(rows, rank) * 0.3
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": ADAPTED, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
