"""Parameters of the paper preset's components, without allocating them: ``python benchmarks/paper_sizes.py``."""

from prefrestore.pipeline.components import build_components
from prefrestore.pipeline.presets import load_preset


def main() -> None:
    preset = load_preset("paper")
    networks = [name for name in preset.components if name != "text_tokenizer"]
    parts = build_components(preset, dict.fromkeys(networks, "empty"))
    rows = {
        "denoiser": parts["transformer"],
        "autoencoder": parts["autoencoder"],
        "vision encoder of TA-Tok": parts["image_tokenizer"].encoder,
        "connectors": parts["connectors"],
    }
    for name, module in rows.items():
        count = sum(parameter.numel() for parameter in module.parameters())
        print(f"{name:26} {count / 1e6:8.1f} M parameters  {2 * count / 1e9:5.2f} GB in bfloat16")


if __name__ == "__main__":
    main()
