"""DeepSpeed's ZeRO-1 and ZeRO-2: whole parameters in every process, gradients and moments in pieces.

DeepSpeed lays the trained parameters one after the other in flat buffers, cuts those over the processes, and steps on
its own copy of its piece. A parameter's moments come and go whole through ``safe_get`` and ``safe_set`` functions of
DeepSpeed, see https://deepspeed.readthedocs.io/en/latest/zero3.html. Written against DeepSpeed 0.19.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from prefrestore.errors import InvalidInputError
from prefrestore.training.sharding import Moments

KEYS = ("exp_avg", "exp_avg_sq")


def check_deepspeed(accelerator: Accelerator) -> None:
    """Raise InvalidInputError for what DeepSpeed can do and `Trainer` cannot use."""
    plugin = accelerator.state.deepspeed_plugin
    if plugin.zero_stage == 3:
        # It gathers each module when a process passes through it, so all must pass through the same ones: here some
        # do not need a frozen part that others need, and the discriminator gives a gradient inside a forward pass.
        raise InvalidInputError(
            "ZeRO-3 of DeepSpeed cannot train this model, whose processes do not all pass through the same modules: "
            "training/accelerate/fsdp.yaml splits the same things"
        )
    halved = [name for name in ("fp16", "bf16") if plugin.deepspeed_config.get(name, {}).get("enabled")]
    if plugin.zero_stage not in (1, 2) or plugin.offload_optimizer_device not in (None, "none") or halved:
        raise InvalidInputError(
            "DeepSpeed is for ZeRO-1 and ZeRO-2 here, without offloading or a precision of its own, as in "
            "training/accelerate/deepspeed_zero2.yaml; --mixed-precision bf16 is the stage's option"
        )


def prepare_deepspeed(
    accelerator: Accelerator, objective: nn.Module, optimizer: torch.optim.Optimizer, *, clip: float, low: bool
) -> tuple[nn.Module, torch.optim.Optimizer, Moments]:
    """See `prefrestore.training.processes.prepare`."""
    # The loop adds micro-batches up and divides their losses itself; sizes are only counted in DeepSpeed's log.
    settings: dict[str, Any] = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}
    settings["gradient_clipping"] = clip
    # The engine's autocast replaces the loop's. Without modules in the list, gradients are summed in float32.
    settings["torch_autocast"] = {"enabled": low, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    accelerator.state.deepspeed_plugin.deepspeed_config.update(settings)
    module, optimizer = accelerator.prepare(objective, optimizer)
    return module, optimizer, DeepSpeedMoments(optimizer)


class DeepSpeedMoments(Moments):
    """See `Moments`; whole tensors, gathered parameter by parameter, and one number of steps for all parameters."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(optimizer)
        self.engine_optimizer: Any = optimizer.optimizer  # type: ignore[attr-defined]

    def _states(self) -> list[dict[str, Tensor]]:
        """What the AdamW inside holds of this process's pieces; nothing before the first step."""
        inner = self.engine_optimizer.optimizer.state
        return [inner[flat] for flat in self.engine_optimizer.single_partition_of_fp32_groups if flat in inner]

    def get(self, parameter: Tensor) -> dict[str, Tensor]:
        """See `Moments.get`."""
        from deepspeed.utils import safe_get_full_optimizer_state

        states = self._states()
        if not states:
            return {}
        moments = {key: safe_get_full_optimizer_state(parameter, key) for key in KEYS}
        return {"step": states[0]["step"].clone()} | moments

    def put(self, parameter: Tensor, moments: Mapping[str, Tensor]) -> None:
        """See `Moments.put`; of several numbers of steps the largest is kept."""
        from deepspeed.utils import safe_set_full_optimizer_state

        if not self._states():
            for flat in self.engine_optimizer.single_partition_of_fp32_groups:
                empty = {key: torch.zeros_like(flat) for key in KEYS}
                self.engine_optimizer.optimizer.state[flat] = {"step": torch.zeros(())} | empty
            # Tells each parameter where its moments lie; DeepSpeed does it itself after its first step.
            self.engine_optimizer._lazy_init_hp_params_optimizer_state()
        for state in self._states():
            state["step"] = torch.maximum(state["step"], moments["step"])
        for key in KEYS:
            safe_set_full_optimizer_state(parameter, moments[key].to(parameter.device), key)

    def parameters_were_read(self) -> None:
        """See `Moments.parameters_were_read`: the copy to step on is taken anew."""
        self.engine_optimizer.refresh_fp32_params()
