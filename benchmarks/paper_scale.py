"""The reference procedure in straight lines against this package, on one random checkpoint with the paper's shapes.

    python benchmarks/paper_scale.py               widths / 4, depths / 3.5, one thread of a CPU
    python benchmarks/paper_scale.py --full        the paper's own shapes in bfloat16, for a GPU
    python benchmarks/paper_scale.py --tiny        only to see that it runs
    python benchmarks/paper_scale.py sizes         parameters of the paper preset's components

*reference* generates 729 tokens with a growing cache over the whole vocabulary, runs the whole sequence again for its
hidden states, and takes 30 Euler steps with the guidance batch doubled at 2.0. *exact* computes the same numbers with
this package: drafted decoding, hidden states kept, the same 30 steps at 2.0. *default* is what a user gets: the same
tokens, and the preset's solver, steps and guidance: second order, 12, and none. The number of passes that a draft saves
depends on how often the LQ image's token is right, which random weights cannot tell: the language model is built to
repeat it with an adjustable strength (paper_models.py), here at 97 % of the places; the compact model, the only trained
one there is to ask, agrees with more than 99 %. Other rates: shortcuts.py drafting --random. Pictures of random weights
mean nothing, so nothing is said here about their quality.

Seconds are processor time of one thread on a CPU, and the clock on a GPU. Peak memory includes the weights.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from parts import paper_models
from parts.paper_models import FULL, SMALL, TINY, Models
from parts.systems import command
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import DynamicCache

from prefrestore.models.semantic.decoding import write_tokens
from prefrestore.models.texture.condition_memory import remembered_conditions
from prefrestore.models.texture.conditioning import Conditions, conditional_velocity, embed_latents
from prefrestore.models.texture.sampler import SOLVERS, flow_times, guided
from prefrestore.pipeline.components import build_components
from prefrestore.pipeline.presets import load_preset

STEPS, GUIDANCE = 30, 2.0
STAGES = ("tokenizer", "LM", "LQ encoder", "denoiser", "decoder")


@dataclass
class Run:
    """What one procedure gave and took."""

    seconds: dict[str, float] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    passes: float = 0
    peak: int = 0


class Meter:
    """Seconds and peak memory on one device."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")

    def now(self) -> float:
        if not self.cuda:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def stage(self, run: Run, name: str) -> Iterator[None]:
        start = self.now()
        yield
        run.seconds[name] = run.seconds.get(name, 0) + self.now() - start

    def reset_peak(self) -> None:
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        elif (refs := Path("/proc/self/clear_refs")).exists():
            refs.write_text("5")  # Linux: the peak of resident memory starts anew

    def peak(self) -> int:
        """Bytes."""
        if self.cuda:
            return torch.cuda.max_memory_allocated()
        status = Path("/proc/self/status")
        lines = status.read_text().splitlines() if status.exists() else []
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def reference_tokens(models: Models, lq: Tensor, run: Run) -> None:
    """Token by token with transformers' growing cache, all logits; then the whole sequence once more."""
    ids, cache = paper_models.chats(models.vocabulary, lq).input_ids, DynamicCache()
    fed = ids
    for _ in range(lq.shape[1]):
        logits = models.language_model(input_ids=fed, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        fed = logits[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, fed], dim=1)
        run.passes += 1
    states = models.language_model.model(input_ids=ids, use_cache=False).last_hidden_state
    run.passes += 1
    run.values["tokens"] = ids[:, -lq.shape[1] :] - models.vocabulary.first
    run.values["queries"] = states[:, -lq.shape[1] - 1 :]


def reference(models: Models, images: Tensor, lq: Tensor, noise: Tensor, meter: Meter) -> Run:
    """The published inference, as the format's description has it."""
    run, scale = Run(), models.autoencoder.config.scaling_factor
    meter.reset_peak()
    with meter.stage(run, "tokenizer"):
        models.tokenizer(images)
    with meter.stage(run, "LM"):
        reference_tokens(models, lq, run)
    with meter.stage(run, "LQ encoder"):
        latents = models.autoencoder.encode(images).latent * scale
    with meter.stage(run, "denoiser"):
        told = models.connectors(run.values["queries"], models.transformer.patch_embed(latents))
        doubled, x = torch.cat([torch.zeros_like(told), told]), noise
        for index in range(STEPS):
            t = 1 - index / STEPS
            times = torch.full((2 * len(x),), 1000 * t, device=x.device)
            both = models.transformer(
                torch.cat([x, x]).to(told.dtype), encoder_hidden_states=doubled, timestep=times, return_dict=False
            )[0].float()
            without, with_it = both.chunk(2)
            x = x - (without + GUIDANCE * (with_it - without)) / STEPS
        run.values["latents"] = x
    with meter.stage(run, "decoder"):
        models.autoencoder.decode((x / scale).to(told.dtype))
    run.peak = meter.peak()
    return run


def ours(
    models: Models,
    images: Tensor,
    lq: Tensor,
    noise: Tensor,
    meter: Meter,
    *,
    steps: int,
    guidance: float,
    solver: str,
) -> Run:
    """This package's parts in the pipeline's order."""
    run, scale = Run(), models.autoencoder.config.scaling_factor
    meter.reset_peak()
    with meter.stage(run, "tokenizer"):
        models.tokenizer(images)
    with meter.stage(run, "LM"):
        chats = paper_models.chats(models.vocabulary, lq)
        written = write_tokens(models.language_model, chats, models.vocabulary, lq.shape[1], draft=lq)
        run.values |= {"tokens": written.tokens, "queries": written.queries}
        run.passes = float(written.passes.float().mean())
    with meter.stage(run, "LQ encoder"):
        latents = models.autoencoder.encode(images).latent.float() * scale
    with meter.stage(run, "denoiser"):
        dtype, start = written.queries.dtype, torch.zeros_like(latents)
        told = Conditions(
            lq_latents=latents,
            condition=models.connectors(written.queries, embed_latents(models.transformer, latents.to(dtype))),
        )

        def under(conditions: Conditions) -> Callable[[Tensor, Tensor], Tensor]:
            return conditional_velocity(models.transformer, conditions, start, residual_std=None)

        velocity = guided(under(told), under(told.unconditional()), guidance)
        with remembered_conditions(models.transformer):
            x = SOLVERS[solver](velocity, noise, flow_times(steps))
        run.values["latents"] = x
    with meter.stage(run, "decoder"):
        models.autoencoder.decode((x / scale).to(dtype))
    run.peak = meter.peak()
    return run


def relative(one: Tensor, other: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((one - other).abs().max() / other.abs().max())


def show(console: Console, title: str, runs: dict[str, Run]) -> None:
    table = Table(title=title)
    for column in ("", *runs):
        table.add_column(column, justify="right" if column else "left")
    base = sum(runs["reference"].seconds.values())
    for stage in STAGES:
        table.add_row(f"{stage}, s", *(f"{run.seconds[stage]:.2f}" for run in runs.values()))
    totals = [sum(run.seconds.values()) for run in runs.values()]
    table.add_row("together, s", *(f"{total:.2f}" for total in totals))
    table.add_row("times faster", *(f"{base / total:.2f}" for total in totals))
    table.add_row("LM passes a face", *(f"{run.passes:.0f}" for run in runs.values()))
    table.add_row("peak memory, MB", *(f"{run.peak / 1e6:.0f}" for run in runs.values()))
    tokens, queries = runs["reference"].values["tokens"], runs["reference"].values["queries"]
    table.add_row("tokens as reference", *(str(torch.equal(run.values["tokens"], tokens)) for run in runs.values()))
    table.add_row("queries differ by", *(f"{relative(run.values['queries'], queries):.0e}" for run in runs.values()))
    latents = runs["reference"].values["latents"]
    table.add_row("latents differ by", *(f"{relative(run.values['latents'], latents):.0e}" for run in runs.values()))
    console.print(table)


@torch.no_grad()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the paper's shapes, bfloat16")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--copy", type=float, default=0.31, help="how strongly the LQ tokens are repeated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    preset = load_preset("paper").flow
    meter, console = Meter(options.device), Console(width=140)
    models = paper_models.build(FULL if options.full else TINY if options.tiny else SMALL, options.seed)
    paper_models.make_copying(models.language_model, models.vocabulary, paper_models.DISTANCE, options.copy)
    dtype = torch.bfloat16 if options.full else torch.float32
    for part in models.parts():
        part.to(options.device, dtype)
    generator = torch.Generator().manual_seed(options.seed)
    images = (torch.rand(options.batch, 3, 512, 512, generator=generator) * 2 - 1).to(options.device, dtype)
    noise = torch.randn(options.batch, 32, 16, 16, generator=generator).to(options.device)
    lq = torch.randint(0, models.vocabulary.size, (options.batch, paper_models.PLACES), generator=generator)
    lq = lq.to(options.device)
    call = (models, images, lq, noise, meter)
    runs = {
        "reference": reference(*call),
        "exact": ours(*call, steps=STEPS, guidance=GUIDANCE, solver="euler"),
        "default": ours(*call, steps=preset.num_inference_steps, guidance=preset.guidance_scale, solver=preset.solver),
    }
    right = float((runs["reference"].values["tokens"] == lq).float().mean())
    title = f"{options.device}, {str(dtype)[6:]}, batch {options.batch}, default mode "
    title += f"{preset.num_inference_steps} steps, guidance {preset.guidance_scale}; "
    show(console, title + f"the LQ token is right at {100 * right:.0f} % of the places", runs)
    if options.json:
        record = {name: {"seconds": run.seconds, "passes": run.passes, "peak": run.peak} for name, run in runs.items()}
        options.json.write_text(json.dumps({"runs": record, "agreement": right}, indent=1))
    return 0


def sizes() -> None:
    """Print the parameters of the paper preset's components, without allocating them."""
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
    sys.exit(command(main, sizes=sizes))
