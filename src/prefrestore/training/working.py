"""The pipeline of a working folder: its finished components, and beside them what a stage is about to train."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from prefrestore.training.components import check_together, component_folder

if TYPE_CHECKING:
    from prefrestore.pipeline.components import Source
    from prefrestore.pipeline.pipeline import PrefRestorePipeline


def working_pipeline(
    preset_name: str, output_dir: Path, sources: Mapping[str, Source], *, trained: Collection[str] = (), seed: int = 0
) -> PrefRestorePipeline:
    """The finished components of a working folder, and beside them those of ``sources``, in a pipeline of the preset.

    Without a last octave, since its faces are of the core's size, and without steering, which prompts alone ask for.

    Args:
        trained, seed: see `prefrestore.pipeline.components.build_components`.

    Raises:
        WeightsError: a component is neither finished nor among the sources, or is not of one run with its neighbour.
    """
    from prefrestore.pipeline.build import build_pipeline
    from prefrestore.pipeline.presets import load_preset

    preset = load_preset(preset_name)
    finished: dict[str, Source] = {
        name: component_folder(output_dir, name) for name in preset.components if name not in sources
    }
    optional = [name for name in preset.optional if name not in ("last_octave", "steering")]
    finished |= {name: output_dir / name for name in optional if (output_dir / name).is_dir()}
    # Not the autoencoder: a run that trained its decoder further wrote a denoiser beside it, which may be new here.
    check_together(output_dir, [name for name in ("lq_encoder", "language_model") if name in finished])
    return build_pipeline(preset, {**finished, **sources}, trained=trained, seed=seed)


def answer_zero(transformer: nn.Module) -> None:
    """Let a new denoiser begin by answering zero, whatever it is asked."""
    for parameter in transformer.get_submodule("proj_out").parameters():
        nn.init.zeros_(parameter)
