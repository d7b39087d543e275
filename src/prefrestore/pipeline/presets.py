"""Presets: typed configurations in JSON files; a preset names every component's numbers and no code path."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from importlib import resources
from typing import Any, Literal

from prefrestore.errors import InvalidInputError

PRESET_NAMES = ("compact", "tiny", "paper")


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """How the flow starts and is sampled.

    Args:
        start: ``lq_latent`` starts from the posterior-mean estimate (PMRF, arXiv 2410.00418), ``noise`` from noise.
        noise_scale: standard deviation of the noise in the source, in units of the scaled latents.
        residual_std: standard deviation of clean latent minus start, for `flow.residual_velocity`; None takes
            the denoiser's output as the velocity, as the paper does.
        num_inference_steps, guidance_scale, fidelity, solver: the defaults of a call.
    """

    start: Literal["lq_latent", "noise"]
    noise_scale: float
    residual_std: float | None
    num_inference_steps: int
    guidance_scale: float
    fidelity: float
    solver: str = "euler"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One scale of the system; the dictionaries are the keyword arguments of the components' constructors."""

    name: str
    face_size: int
    image_tokenizer: dict[str, Any]
    text_tokenizer: dict[str, Any]
    language_model: dict[str, Any]
    autoencoder: dict[str, Any]
    lq_encoder: dict[str, Any]
    transformer: dict[str, Any]
    flow: FlowConfig
    answer_position: int | None = None

    def pipeline_config(self) -> dict[str, Any]:
        """The pipeline's own arguments beside its components."""
        return {
            "face_size": self.face_size,
            "answer_position": self.answer_position,
            "preset": self.name,
            **asdict(self.flow),
        }


def load_preset(name: str) -> Preset:
    """Read a preset by name.

    Raises:
        InvalidInputError: no such preset.
    """
    if name not in PRESET_NAMES:
        raise InvalidInputError(f"no preset '{name}'; there are {', '.join(PRESET_NAMES)}")
    values = json.loads((resources.files("prefrestore.pipeline") / "configs" / f"{name}.json").read_text())
    unknown = set(values) - {field.name for field in fields(Preset)}
    if unknown:
        raise InvalidInputError(f"preset '{name}' has unknown entries: {', '.join(sorted(unknown))}")
    return Preset(**{**values, "flow": FlowConfig(**values["flow"])})
