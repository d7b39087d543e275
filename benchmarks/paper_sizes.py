"""Parameters of the paper preset's components, without allocating them: ``python benchmarks/paper_sizes.py``."""

from accelerate import init_empty_weights
from torch import nn

from prefrestore.models.semantic.ta_tok import TATok
from prefrestore.pipeline.published.components import (
    Architecture,
    empty_autoencoder,
    empty_connectors,
    empty_transformer,
)
from prefrestore.pipeline.published.tensors import Info

LANGUAGE_MODEL_WIDTH = 2048


def main() -> None:
    paper = Architecture.paper()
    # SANA 1.5 normalises queries and keys: its files have this tensor.
    normalised = {"transformer_blocks.0.attn1.norm_q.weight": Info((2240,), "BF16")}
    transformer = empty_transformer("paper", normalised, paper.transformer)
    with init_empty_weights():
        tokenizer = TATok(code_dim=1, **paper.image_tokenizer)
    rows: dict[str, nn.Module] = {
        "denoiser": transformer,
        "autoencoder": empty_autoencoder("paper", paper.autoencoder),
        "vision encoder of TA-Tok": tokenizer.encoder,
        "connectors": empty_connectors(LANGUAGE_MODEL_WIDTH, transformer),
    }
    for name, module in rows.items():
        count = sum(parameter.numel() for parameter in module.parameters())
        print(f"{name:26} {count / 1e6:8.1f} M parameters  {2 * count / 1e9:5.2f} GB in bfloat16")


if __name__ == "__main__":
    main()
