"""Presets: typed configurations in JSON files; a preset names every component's class and numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from prefrestore.errors import InvalidInputError
from prefrestore.files.fingerprints import file_hash
from prefrestore.files.weights import bundled_folder

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
class ComponentConfig:
    """What a component is made of: the name of its class, see `components.component_class`, and its arguments."""

    class_name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One scale of the system.

    Args:
        name: of the preset.
        face_size: side of the faces, in pixels.
        weights: those of a pipeline that is asked for by the preset's name alone: ``bundled`` with the package,
            ``random`` for tests, or ``none``, which needs a folder.
        components: by the pipeline's names.
        optional: components that a stage may add, and without which a new pipeline is made.
        flow: see there.
        answer_position: see `prefrestore.models.semantic.instruction.build_chats`.
        assumed: what the preset assumes of weights that are published elsewhere, in words; their own files decide.
    """

    name: str
    face_size: int
    weights: Literal["bundled", "random", "none"] = "none"
    components: dict[str, ComponentConfig]
    optional: dict[str, ComponentConfig] = field(default_factory=dict)
    flow: FlowConfig
    answer_position: int | None = None
    assumed: str = ""

    def component(self, name: str) -> ComponentConfig:
        """The configuration of a component, optional or not.

        Raises:
            InvalidInputError: the preset has no such component.
        """
        known = {**self.components, **self.optional}
        if name not in known:
            raise InvalidInputError(f"the preset '{self.name}' has no {name}; it has {', '.join(known)}")
        return known[name]

    def with_arguments(self, name: str, arguments: Mapping[str, Any]) -> Preset:
        """The same with other arguments of a component."""
        changed = ComponentConfig(class_name=self.component(name).class_name, arguments=dict(arguments))
        return replace(self, components={**self.components, name: changed})

    def pipeline_config(self) -> dict[str, Any]:
        """The pipeline's own arguments beside its components."""
        return {
            "face_size": self.face_size,
            "answer_position": self.answer_position,
            "preset": self.name,
            **asdict(self.flow),
        }


def load_preset(name: str) -> Preset:
    """Read a preset: one of `PRESET_NAMES`, or a JSON file of the same form, named by its path.

    Raises:
        InvalidInputError: no such preset, or the file does not describe one.
    """
    if name in PRESET_NAMES:
        text = (resources.files("prefrestore.pipeline") / "configs" / f"{name}.json").read_text()
    elif name.endswith(".json"):
        try:
            text = Path(name).read_text()
        except OSError as error:
            raise InvalidInputError(f"{name}: this preset cannot be read ({error})") from error
    else:
        raise InvalidInputError(f"no preset '{name}'; there are {', '.join(PRESET_NAMES)}, and files *.json")
    try:
        values = json.loads(text)
        unknown = set(values) - {field.name for field in fields(Preset)}
        if unknown:
            raise InvalidInputError(f"preset '{name}' has unknown entries: {', '.join(sorted(unknown))}")
        groups = {group: _components(values.get(group, {})) for group in ("components", "optional")}
        return Preset(**{**values, **groups, "flow": FlowConfig(**values["flow"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInputError(f"preset '{name}': this does not describe a preset ({error!r})") from error


def preset_identity(name: str) -> str:
    """What tells a preset from others: its name, or of a file what it holds. Raises InvalidInputError."""
    load_preset(name)
    return name if name in PRESET_NAMES else file_hash(Path(name))


def weights_folder(name: str, model: Path | None = None) -> Path | None:
    """Where a pipeline of a preset finds its weights: in ``model``, in the package, or None where they are random.

    Raises:
        InvalidInputError: no such preset.
        WeightsError: it has no weights of its own, and no ``model`` was named.
    """
    preset = load_preset(name)
    if model is not None:
        return model
    return None if preset.weights == "random" else bundled_folder(preset.name)


def _components(group: Mapping[str, Mapping[str, Any]]) -> dict[str, ComponentConfig]:
    return {
        name: ComponentConfig(
            class_name=values["class"],
            arguments={key: value for key, value in values.items() if key != "class"},
        )
        for name, values in group.items()
    }
