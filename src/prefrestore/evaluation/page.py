"""The results as one HTML file that needs nothing else: tables, where they come from, and pictures inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prefrestore.evaluation.columns import COLUMNS, Row, shown, used
from prefrestore.evaluation.measure import Measured
from prefrestore.evaluation.results import Results
from prefrestore.files.atomic import written_beside

_SIDE = 160
_SHOWN = 8
# What worst and best are judged by: the first of these that has values.
_ORDER = ("lpips_alex", "lpips_vgg", "psnr", "niqe")

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 72rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #8886; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td.hash { font: .75rem ui-monospace, monospace; white-space: normal; overflow-wrap: anywhere; text-align: left; }
.faces { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figure div { display: flex; gap: 2px; }
figure img { flex: 1 1 0; min-width: 0; width: 100%; height: auto; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; }
.said { border-left: 4px solid #c80; padding-left: .8rem; }
"""


class Gallery:
    """Thumbnails of the measured faces, kept as small JPEGs: what was read, the restoration, the reference."""

    def __init__(self) -> None:
        self._pictures: dict[tuple[str, str, str], list[tuple[str, str]]] = {}

    def add(self, title: str, item: Measured) -> None:
        """Keep one face of the set `title`."""
        pictures = [("restored", item.pictures[0])]
        if item.face.restored is None:
            pictures.insert(0, ("input", item.source))
        if item.reference is not None:
            pictures.append(("reference", item.reference))
        self._pictures[title, item.system, item.face.name] = [(what, _uri(picture)) for what, picture in pictures]

    def figure(self, title: str, system: str, face: str, caption: str) -> str:
        """The face's pictures side by side as HTML."""
        images = "".join(
            f'<img src="{uri}" alt="{what} of {escape(face)}" title="{what}" loading="lazy"/>'
            for what, uri in self._pictures.get((title, system, face), [])
        )
        return f"<figure><div>{images}</div><figcaption>{escape(caption)}</figcaption></figure>"


def _uri(picture: NDArray[np.uint8]) -> str:
    image = Image.fromarray(picture)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def write_page(results: Results, gallery: Gallery, path: Path, title: str) -> None:
    """Write the page whole or not at all.

    `results.extra` may hold ``remarks`` (sentences), ``missing`` (reasons by metric), ``protocol``, ``versions``,
    ``metrics`` and ``pipeline`` (see `prefrestore.evaluation.provenance`).
    """
    extra = results.extra
    parts = [f"<h1>{escape(title)}</h1>"]
    if protocol := extra.get("protocol"):
        parts.append(f"<p>{escape(protocol['title'])}: {escape(protocol['source'])}.</p>")
    said = [*extra.get("remarks", [])]
    said += [f"{_title(metric)} is left blank: {why}" for metric, why in extra.get("missing", {}).items()]
    parts += [f'<p class="said">{escape(sentence)}</p>' for sentence in said]
    for name in results.rows:
        parts += _set(results, gallery, name)
    parts.append("<h2>How it was measured</h2>")
    parts.append(_table(["metric", "better", "how"], [[c.title, c.better, c.how] for c in _present(results)]))
    weights = [(metric, w["network"], w["sha256"]) for metric, w in extra.get("metrics", {}).items()]
    for owner, record in extra.get("pipeline", {}).items():
        weights += [(owner, file, digest) for file, digest in record["sha256"].items()]
    parts.append(_table(["weights of", "file or network", "sha256"], weights, hashes=True))
    parts.append(_table(["setting", ""], [(key, str(value)) for key, value in results.settings.items()]))
    parts.append(_table(["package", "version"], list(extra.get("versions", {}).items())))
    html = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>" + "\n".join(parts) + "</body></html>\n"
    )
    with written_beside(path) as part:
        part.write_text(html, encoding="utf-8")


def _title(metric: str) -> str:
    return COLUMNS[metric].title if metric in COLUMNS else metric


def _present(results: Results) -> list[Any]:
    return [COLUMNS[key] for key in used(s for name in results.rows for s in results.summaries(name).values())]


def _set(results: Results, gallery: Gallery, name: str) -> list[str]:
    summaries = results.summaries(name)
    keys = used(summaries.values())
    parts = [f"<h2>{escape(name)}</h2>"]
    if name in results.resized:
        parts.append('<p class="said">The restorations were brought to the size of the references (Lanczos).</p>')
    rows = []
    for system, summary in summaries.items():
        cells = [f"{shown(key, summary[key]['mean'])} ({summary[key]['n']})" if key in summary else "" for key in keys]
        rows.append([system, *cells])
    parts.append(_table(["mean (faces)", *(f"{COLUMNS[k].title}, {COLUMNS[k].better}" for k in keys)], rows))
    for system, faces in results.rows[name].items():
        parts += _best_and_worst(gallery, name, system, faces)
    if aside := results.aside[name]:
        parts.append(f"<h3>Set aside: {len(aside)}</h3>" + _table(["face", "why"], list(aside.items())))
    for system, faces in results.rows[name].items():
        own = [key for key in keys if any(row.get(key) is not None for row in faces.values())]
        lines = [[face, *(shown(key, row.get(key)) for key in own)] for face, row in faces.items()]
        table = _table(["face", *(COLUMNS[key].title for key in own)], lines)
        parts.append(f"<details><summary>All faces, {escape(system)}</summary>{table}</details>")
    return parts


def _best_and_worst(gallery: Gallery, name: str, system: str, faces: Mapping[str, Row]) -> list[str]:
    metric = next((key for key in _ORDER if any(row.get(key) is not None for row in faces.values())), None)
    if metric is None:
        return []
    sign = 1 if COLUMNS[metric].better == "lower" else -1
    ranked = sorted((sign * value, face) for face, row in faces.items() if (value := row.get(metric)) is not None)
    best = ranked[: min(_SHOWN, (len(ranked) + 1) // 2)]
    worst = ranked[len(best) :][-_SHOWN:][::-1]
    parts = []
    for word, chosen in (("Worst", worst), ("Best", best)):
        if chosen:
            figures = [
                gallery.figure(name, system, face, f"{face}: {_title(metric)} {shown(metric, sign * value)}")
                for value, face in chosen
            ]
            heading = f"{word} by {_title(metric)}, {system}"
            parts.append(f'<h3>{escape(heading)}</h3><div class="faces">{"".join(figures)}</div>')
    return parts


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], hashes: bool = False) -> str:
    lines = ["<tr>" + "".join(f"<th>{escape(head)}</th>" for head in heads) + "</tr>"]
    for row in rows:
        kinds = [' class="hash"' if hashes and place else "" for place in range(len(row))]
        lines.append("<tr>" + "".join(f"<td{k}>{escape(c)}</td>" for k, c in zip(kinds, row, strict=True)) + "</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'
