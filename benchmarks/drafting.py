"""Drafted decoding against plain greedy decoding on the paired benchmark: are the tokens the same, how many passes of
the language model do they take, and what does it save?

    python benchmarks/drafting.py                         the bundled weights, 166 faces at each of two levels
    python benchmarks/drafting.py --limit 16 --json drafting.json
    python benchmarks/drafting.py --agreement 100 97 50 0 --batches 1 --limit 16

The draft of a face are the tokens of its LQ image; with --agreement they are the tokens that greedy decoding writes,
this percentage of them, and others at random places. Both ways decode each batch right after one another; the seconds
are processor time of one thread, which other work on the machine disturbs less than the clock. docs/benchmarks.md has
the figures.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from prefrestore.models.semantic.decoding import Written, write_tokens
from prefrestore.models.semantic.instruction import ChatInputs, ImageVocabulary, build_chats
from prefrestore.pipeline.build import load_preset_pipeline

BENCH = Path(__file__).resolve().parents[2] / "shared" / "data" / "bench"


def timed(*args: Any, **kwargs: Any) -> tuple[Written, float]:
    """`write_tokens` and its seconds."""
    start = time.process_time()
    written = write_tokens(*args, **kwargs)
    return written, time.process_time() - start


def lq_tokens(pipeline: Any, paths: list[Path]) -> torch.Tensor:
    """The faces' own tokens (B,N), as the pipeline sees them."""
    images = pipeline.prepare([Image.open(path).convert("RGB") for path in paths])
    side = pipeline.image_tokenizer.config.image_size
    if images.shape[-1] != side:
        images = F.interpolate(images, size=(side, side), mode="bicubic", antialias=True).clamp(-1, 1)
    with torch.no_grad():
        return pipeline.image_tokenizer.encode(images)


def spoilt(tokens: torch.Tensor, percent: float, codes: int) -> torch.Tensor:
    """The tokens (B,N), this share of them; each of the others is another code."""
    generator = torch.Generator().manual_seed(0)
    count = round(tokens.numel() * (1 - percent / 100))
    places = torch.randperm(tokens.numel(), generator=generator)[:count]
    draft = tokens.flatten().clone()
    draft[places] = (draft[places] + torch.randint(1, codes, (count,), generator=generator)) % codes
    return draft.view_as(tokens)


def measure(pipeline: Any, paths: list[Path], batch: int, percent: float | None) -> dict[str, float]:
    """One level: sums over all faces, decoded in batches; ``percent``: of `spoilt`, None takes the LQ tokens."""
    model, vocabulary = pipeline.language_model, ImageVocabulary.of(pipeline.text_tokenizer)
    total: dict[str, float] = dict.fromkeys(
        ("faces", "same tokens", "agreeing tokens", "passes", "most passes", "greedy s", "drafted s", "difference"), 0.0
    )
    for start in range(0, len(paths), batch):
        tokens = lq_tokens(pipeline, paths[start : start + batch])
        chats: ChatInputs = build_chats(
            pipeline.text_tokenizer, tokens, answer_position=pipeline.config.answer_position
        )
        greedy, greedy_s = timed(model, chats, vocabulary, tokens.shape[1])
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
    return total


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
        f"{total['greedy s'] / total['drafted s']:.1f}",
        f"{total['difference']:.1e}",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="compact")
    parser.add_argument("--model", type=Path, help="a pipeline folder in place of the bundled weights")
    parser.add_argument("--bench", type=Path, default=BENCH)
    parser.add_argument("--levels", nargs="+", default=["mild", "severe"])
    parser.add_argument("--batches", nargs="+", type=int, default=[16], help="faces decoded together")
    parser.add_argument("--agreement", nargs="+", type=float, metavar="PERCENT", help="of made drafts")
    parser.add_argument("--limit", type=int, help="only so many faces a level")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = load_preset_pipeline(options.preset, folder=options.model)
    count = pipeline.image_tokenizer.num_tokens
    table = Table(title=f"{options.preset}, {count} tokens a face; without a draft they take {count + 1} passes")
    titles = ("level", "batch", "faces", "same tokens", "draft tokens right", "mean passes", "most", "greedy s/face")
    for title in (*titles, "drafted s/face", "times faster", "largest query difference"):
        table.add_column(title, justify="right")
    results: dict[str, dict[str, float]] = {}
    for batch in options.batches:
        for level in options.levels:
            paths = sorted((options.bench / level).glob("*.png"))[: options.limit]
            for percent in options.agreement or [None]:
                total = measure(pipeline, paths, batch, percent)
                results[f"{level}, batch {batch}" + ("" if percent is None else f", {percent:g} %")] = total
                table.add_row(level, str(batch), *row(total))
    Console(width=160).print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 0 if all(total["same tokens"] == total["faces"] for total in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
