"""What well-kept libraries would give in place of own code: the largest difference of each on the same input.

    python tools/libraries.py

docs/notes/libraries.md says what was decided. A package that is not installed is passed over.
"""

import math
import sys
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import EMAModel
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from prefrestore.metrics.pixels import psnr, ssim
from prefrestore.models.texture.sampler import dpm_solver, euler, flow_times

MEAN, STD = 0.5, 0.3
"""Of the data in `solvers`: a Gaussian, whose flow is known in closed form."""


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(line + "\n")


def pixels() -> None:
    """PSNR and SSIM."""
    if not find_spec("torchmetrics"):
        return say("torchmetrics is not installed")
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    picture = np.clip(truth + rng.normal(0, 20, truth.shape), 0, 255).astype(np.uint8)
    pair = [torch.from_numpy(part).permute(2, 0, 1)[None].double() for part in (picture, truth)]
    other = float(peak_signal_noise_ratio(*pair, data_range=255.0))
    say(f"PSNR, torchmetrics: {abs(other - psnr(picture, truth)):.1e} dB apart")
    other = float(structural_similarity_index_measure(*pair, data_range=255.0))
    return say(f"SSIM, torchmetrics: {abs(other - ssim(picture, truth)):.1e} apart")


def velocity(x: Tensor, t: Tensor) -> Tensor:
    """``E[x_1 - x_0 | x_t]`` of the flow from N(0, 1) to N(MEAN, STD^2)."""
    time = t.view(-1, *[1] * (x.dim() - 1)).to(x.dtype)
    variance = (1 - time) ** 2 * STD**2 + time**2
    away = x - (1 - time) * MEAN
    return (time - (1 - time) * STD**2) / variance * away - MEAN


def by(scheduler: FlowMatchEulerDiscreteScheduler | DPMSolverMultistepScheduler, x: Tensor) -> Tensor:
    """Where a scheduler leads from x."""
    for time in scheduler.timesteps:
        t = torch.full((len(x),), float(time) / scheduler.config.num_train_timesteps)
        x = scheduler.step(velocity(x, t), time, x, return_dict=False)[0]
    return x


def solvers() -> None:
    """Euler and the second order, against the exact end."""
    x = torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    exact = MEAN + STD * x
    for steps in (2, 6, 12):
        times = flow_times(steps)
        first = FlowMatchEulerDiscreteScheduler()
        first.set_timesteps(sigmas=times[:-1])
        second = DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0, final_sigmas_type="zero"
        )
        second.set_timesteps(steps)
        ends: dict[str, Callable[[], Tensor]] = {
            "Euler, own": lambda times=times: euler(velocity, x, times),
            "Euler, diffusers": lambda first=first: by(first, x),
            "second order, own": lambda times=times: dpm_solver(velocity, x, times),
            "second order, diffusers": lambda second=second: by(second, x),
        }
        made = {name: end() for name, end in ends.items()}
        for name, end in made.items():
            say(f"{steps} steps, {name}: {(end - exact).square().mean().sqrt():.5f} from the exact end")
        apart = (made["Euler, own"] - made["Euler, diffusers"]).abs().max()
        say(f"{steps} steps, Euler: {apart:.1e} apart")


def noise() -> None:
    """A generator a sample."""
    shape = (3, 4, 8, 8)

    def sources() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in range(3)]

    own = torch.stack([torch.randn(shape[1:], generator=source) for source in sources()])
    say(f"randn_tensor, a generator a sample: equal {torch.equal(own, randn_tensor(shape, generator=sources()))}")


def average() -> None:
    """The moving average of parameters."""
    generator = torch.Generator().manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(1000, generator=generator))
    model, own = EMAModel([parameter], decay=0.999, use_ema_warmup=False), [parameter.detach().clone()]
    for step in range(1, 101):
        with torch.no_grad():
            parameter.add_(torch.randn(1000, generator=generator) * 0.01)
        model.step([parameter])
        decay = min(0.999, (1 + step) / (10 + step))
        torch._foreach_lerp_(own, [parameter.detach()], 1 - decay)
    apart = float((model.shadow_params[0] - own[0]).abs().max())
    say(f"EMA, diffusers: equal {math.isclose(apart, 0, abs_tol=0)}, {apart:.1e} apart after 100 steps")


def main() -> None:
    """All of them."""
    for part in (pixels, solvers, noise, average):
        part()


if __name__ == "__main__":
    main()
