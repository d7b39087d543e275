"""What two shortcuts of the sampler keep: drafted decoding, and a second-order solver with fewer steps.

    python benchmarks/speed.py drafting               the bundled weights, 166 faces at each of two levels
    python benchmarks/speed.py drafting --limit 16 --json drafting.json
    python benchmarks/speed.py drafting --agreement 100 97 50 0 --batches 1 --limit 16
    python benchmarks/speed.py drafting --agreement 100 97 50 0 --random
    python benchmarks/speed.py solvers

Drafting: are the tokens those of plain greedy decoding, how many passes of the language model do they take, and what
does it save? The draft of a face are the tokens of its LQ image; with --agreement they are the tokens that greedy
decoding writes, this percentage of them, and others at random places; --random asks a language model of random weights
in the published layout (729 tokens, widths / 4) instead, which leans on what it has just written alone. Both ways
decode each batch right after one another; the seconds are processor time of one thread, which other work on the machine
disturbs less than the clock.

Solvers: how many steps does one need? Each against the exact end of flows whose velocity is known in closed form. The
data are mixtures of Gaussians, as a posterior over faces is one of separate guesses; the source is N(0, I). Errors are
the root of the mean square, per number, against 2,000 second-order steps. docs/paper-scale.md has the figures.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from parts import paper_models
from parts.systems import BENCH
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from prefrestore.models.semantic.decoding import Written, write_tokens
from prefrestore.models.semantic.instruction import ChatInputs, ImageVocabulary, build_chats
from prefrestore.models.texture.sampler import dpm_solver, euler, flow_times
from prefrestore.pipeline.build import load_preset_pipeline
from prefrestore.pipeline.inputs import prepare_faces

STARTS = 400
STDS, SHAPES = (0.05, 0.1, 0.3, 0.5), ((2, 8), (32, 8), (32, 64))  # of a component; (dimensions, components)


def mixture_velocity(means: Tensor, std: float) -> Callable[[Tensor, Tensor], Tensor]:
    """``E[x_1 - x_0 | x_t]`` of the flow from N(0, I) to equal parts of ``N(means_k, std^2 I)``, means (K,D)."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        point, time = x.flatten(1), t.double()[:, None]
        variance = (1 - time) ** 2 * std**2 + time**2
        away = point[:, None] - (1 - time)[..., None] * means
        weight = torch.softmax(-away.square().sum(-1) / (2 * variance), 1)
        shrink = (1 - time) * std**2 / variance
        clean = (weight[..., None] * (means + shrink[..., None] * away)).sum(1)
        return ((point - clean) / time).view_as(x)

    return velocity


def solvers() -> None:
    """Each solver against the exact end of flows whose velocity is known in closed form."""
    parser = argparse.ArgumentParser(description=solvers.__doc__)
    parser.add_argument("--euler", type=int, default=30, help="steps of the first-order solver")
    parser.add_argument("--dpm", type=int, nargs="+", default=[6, 8, 10, 12, 15])
    options = parser.parse_args()
    table = Table(title="root mean square error")
    for column in ("std", "numbers", "parts", f"Euler {options.euler}", *(f"dpm {n}" for n in options.dpm)):
        table.add_column(column, justify="right")
    generator = torch.Generator().manual_seed(0)
    for std in STDS:
        for dimensions, components in SHAPES:
            means = torch.randn(components, dimensions, generator=generator, dtype=torch.float64)
            velocity = mixture_velocity(means, std)
            x = torch.randn(STARTS, dimensions, 1, 1, generator=generator, dtype=torch.float64)
            exact = dpm_solver(velocity, x, flow_times(2000))
            ends = [euler(velocity, x, flow_times(options.euler))]
            ends += [dpm_solver(velocity, x, flow_times(steps)) for steps in options.dpm]
            errors = [(end - exact).square().mean().sqrt().item() for end in ends]
            table.add_row(f"{std}", f"{dimensions}", f"{components}", *(f"{error:.3f}" for error in errors))
    Console().print(table)


def timed(*args: Any, **kwargs: Any) -> tuple[Written, float]:
    """`write_tokens` and its seconds."""
    start = time.process_time()
    written = write_tokens(*args, **kwargs)
    return written, time.process_time() - start


def lq_tokens(pipeline: Any, paths: list[Path]) -> torch.Tensor:
    """The faces' own tokens (B,N), as the pipeline sees them."""
    images = pipeline.prepare([Image.open(path).convert("RGB") for path in paths])
    with torch.no_grad():
        return pipeline.image_tokenizer.encode(prepare_faces(images, pipeline.image_tokenizer.config.image_size))


def spoilt(tokens: torch.Tensor, percent: float, codes: int) -> torch.Tensor:
    """The tokens (B,N), this share of them; each of the others is another code."""
    generator = torch.Generator().manual_seed(0)
    count = round(tokens.numel() * (1 - percent / 100))
    places = torch.randperm(tokens.numel(), generator=generator)[:count]
    draft = tokens.flatten().clone()
    draft[places] = (draft[places] + torch.randint(1, codes, (count,), generator=generator)) % codes
    return draft.view_as(tokens)


Asked = tuple[Any, ImageVocabulary, list[tuple[ChatInputs, torch.Tensor]]]
"""A language model, its vocabulary, and batches: the chats, and the LQ tokens (B,N) in them."""


def bundled(pipeline: Any, paths: list[Path], batch: int) -> Asked:
    """A pipeline's language model, asked about faces."""
    text, at = pipeline.text_tokenizer, pipeline.config.answer_position
    tokens = [lq_tokens(pipeline, paths[start : start + batch]) for start in range(0, len(paths), batch)]
    chats = [(build_chats(text, part, answer_position=at), part) for part in tokens]
    return pipeline.language_model, ImageVocabulary.of(text), chats


def random_layout() -> Asked:
    """One face of random tokens, and a random language model of the published layout."""
    vocabulary = paper_models.vocabulary(paper_models.SMALL)
    generator = torch.Generator().manual_seed(0)
    lq = torch.randint(0, vocabulary.size, (1, paper_models.PLACES), generator=generator)
    model = paper_models.language_model(paper_models.SMALL, vocabulary, 0).eval()
    return model, vocabulary, [(paper_models.chats(vocabulary, lq), lq)]


def draft_counts(asked: Asked, percents: list[float | None]) -> list[dict[str, float]]:
    """For each of ``percents`` (of `spoilt`; None takes the LQ tokens) sums over all faces, decoded in batches."""
    model, vocabulary, batches = asked
    names = ("faces", "same tokens", "agreeing tokens", "passes", "most passes", "greedy s", "drafted s", "difference")
    totals: list[dict[str, float]] = [dict.fromkeys(names, 0.0) for _ in percents]
    for chats, tokens in batches:
        greedy, greedy_s = timed(model, chats, vocabulary, tokens.shape[1])
        for percent, total in zip(percents, totals, strict=True):
            draft = tokens if percent is None else spoilt(greedy.tokens, percent, vocabulary.size)
            drafted, drafted_s = timed(model, chats, vocabulary, tokens.shape[1], draft=draft)
            total["faces"] += len(tokens)
            total["same tokens"] += int((drafted.tokens == greedy.tokens).all(1).sum())
            total["agreeing tokens"] += float((draft == greedy.tokens).float().mean(1).sum())
            total["passes"] += float(drafted.passes.sum())
            total["most passes"] = max(total["most passes"], float(drafted.passes.max()))
            total["greedy s"] += greedy_s
            total["drafted s"] += drafted_s
            total["difference"] = max(total["difference"], float((drafted.queries - greedy.queries).abs().max()))
    return totals


def row(total: dict[str, float]) -> list[str]:
    faces = total["faces"]
    return [
        f"{faces:.0f}",
        f"{total['same tokens']:.0f}",
        f"{100 * total['agreeing tokens'] / faces:.1f} %",
        f"{total['passes'] / faces:.2f}",
        f"{total['most passes']:.0f}",
        f"{total['greedy s'] / faces:.4f}",
        f"{total['drafted s'] / faces:.4f}",
        f"{total['greedy s'] / total['drafted s']:.2f}",
        f"{total['difference']:.1e}",
    ]


def drafting() -> int:
    """Drafted decoding against plain greedy decoding on the paired benchmark."""
    parser = argparse.ArgumentParser(description=drafting.__doc__)
    parser.add_argument("--preset", default="compact")
    parser.add_argument("--model", type=Path, help="a pipeline folder in place of the bundled weights")
    parser.add_argument("--bench", type=Path, default=BENCH)
    parser.add_argument("--levels", nargs="+", default=["mild", "severe"])
    parser.add_argument("--batches", nargs="+", type=int, default=[16], help="faces decoded together")
    parser.add_argument("--agreement", nargs="+", type=float, metavar="PERCENT", help="of made drafts")
    parser.add_argument("--random", action="store_true", help="ask a random model of the published layout")
    parser.add_argument("--limit", type=int, help="only so many faces a level")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    asked: dict[tuple[str, int], Asked] = {}
    if options.random:
        asked["random", 1] = random_layout()
    else:
        pipeline = load_preset_pipeline(options.preset, folder=options.model, face_size="core")
        for batch in options.batches:
            for level in options.levels:
                paths = sorted((options.bench / level).glob("*.png"))[: options.limit]
                asked[level, batch] = bundled(pipeline, paths, batch)
    table = Table(title="without a draft, one pass more than there are tokens")
    titles = ("level", "batch", "faces", "same tokens", "draft tokens right", "mean passes", "most", "greedy s/face")
    for title in (*titles, "drafted s/face", "times faster", "largest query difference"):
        table.add_column(title, justify="right")
    results: dict[str, dict[str, float]] = {}
    percents = options.agreement or [None]
    for (level, batch), one in asked.items():
        for percent, total in zip(percents, draft_counts(one, percents), strict=True):
            results[f"{level}, batch {batch}" + ("" if percent is None else f", {percent:g} %")] = total
            table.add_row(level, str(batch), *row(total))
    Console(width=160).print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 0 if all(total["same tokens"] == total["faces"] for total in results.values()) else 1
