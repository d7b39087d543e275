"""What the published training leaves in its folders beside what restoring needs, added to a tiny one."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from tiny_checkpoint import write_shards
from torch import Tensor
from transformers import Qwen2Tokenizer

VISION = "model.vision_tower.vision_tower."


def rewrite(folder: Path, extra: dict[str, Tensor], shards: int = 3) -> None:
    tensors = {key: value for file in folder.glob("*.safetensors") for key, value in load_file(file).items()}
    write_shards(folder, {**tensors, **extra}, shards)


def target_encoder(folder: Path, prefix: str = "fixed_vae.") -> None:
    """Step 2's: the frozen copy that encoded the targets."""
    tensors = {key: value for file in folder.glob("*.safetensors") for key, value in load_file(file).items()}
    own = {key: value for key, value in tensors.items() if key.startswith("model.sana_vae.encoder.")}
    assert own
    rewrite(folder, {key.replace("model.sana_vae.", prefix): value + 1 for key, value in own.items()})


def target_encoder_in_the_model(folder: Path) -> None:
    target_encoder(folder, "model.fixed_vae.")


def one_token_more(folder: Path) -> None:
    """Step 1's: a tokenizer that has ``<image>``, and an embedding that has exactly the other rows."""
    tokenizer = Qwen2Tokenizer.from_pretrained(folder)
    rows = len(tokenizer)
    tensors = {key: value for file in folder.glob("*.safetensors") for key, value in load_file(file).items()}
    table = ("model.embed_tokens.weight", "lm_head.weight")
    rewrite(folder, {key: tensors[key][:rows].clone() for key in table})
    config = folder / "config.json"
    config.write_text(config.read_text().replace(f'"vocab_size": {rows + 5}', f'"vocab_size": {rows}'))
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    assert tokenizer.convert_tokens_to_ids("<image>") == rows


def tokenizer_of_training(folder: Path) -> None:
    rewrite(folder, {VISION + key: value for key, value in TRAINING_ONLY.items()}, 1)


def everything(folder: Path) -> None:
    target_encoder(folder)
    one_token_more(folder)
    tokenizer_of_training(folder)


TRAINING_ONLY = {
    "teacher.encoder.layers.0.weight": torch.ones(3, 3),
    "teacher.logit_scale": torch.ones(()),
    "bottleneck.regularizer.stochastic_temperature_inv": torch.tensor(14.0),
}
SAVED = [target_encoder, target_encoder_in_the_model, one_token_more, tokenizer_of_training, everything]
