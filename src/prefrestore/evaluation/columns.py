"""What is measured, by column: the words of every table, in one place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, "float | None"]


@dataclass(frozen=True)
class Column:
    """title: with its unit. better: "higher" or "lower". digits: shown after the point. how: one sentence."""

    title: str
    better: str
    digits: int
    how: str


FIDELITY = {
    "psnr": Column("PSNR dB", "higher", 2, "over all pixels of RGB"),
    "ssim": Column("SSIM", "higher", 3, "Gaussian window 11 px, sigma 1.5; mean of R, G and B"),
    "lpips_alex": Column("LPIPS alex", "lower", 3, "version 0.1, AlexNet"),
    "lpips_vgg": Column("LPIPS vgg", "lower", 3, "version 0.1, VGG16"),
    "dists": Column("DISTS", "lower", 3, "VGG16 features, structure and texture, at the pictures' own size"),
    "identity": Column("identity", "higher", 3, "cosine of two SFace vectors, aligned by YuNet's points"),
    "identity_degrees": Column("identity °", "lower", 1, "angle of the same two SFace vectors"),
    "named_degrees": Column("named identity °", "lower", 1, "angle of two vectors of the network of --recogniser"),
    "dlib": Column("dlib distance", "lower", 3, "of two vectors of dlib's recogniser, which nothing is trained on"),
    "landmarks": Column("landmarks px", "lower", 2, "mean distance of dlib's 68 points at 512 px"),
}
NATURALNESS = {
    "niqe": Column("NIQE", "lower", 2, "own fits to sharp faces at 256 and 512 px; not comparable with papers' values"),
    "musiq": Column("MUSIQ", "higher", 2, "KonIQ-10k weights; patches at 224, 384 and full size"),
    "sharpness": Column("sharpness", "higher", 1, "variance of the Laplacian of luminance, 0..255"),
}
LIKENESS = {
    "input_likeness": Column("likeness to input", "higher", 3, "cosine of two vectors of the network of --recogniser"),
    "unlike_input": Column("unlike input", "lower", 3, "share of faces below their threshold"),
}
GIVEN = {
    "given_clipiqa": Column("CLIP-IQA, given", "higher", 3, "not measured here: from the file of --scores"),
    "given_maniqa": Column("MANIQA, given", "higher", 3, "not measured here: from the file of --scores"),
    "given_musiq": Column("MUSIQ, given", "higher", 2, "not measured here: from the file of --scores"),
    "given_niqe": Column("NIQE, given", "lower", 2, "not measured here: from the file of --scores"),
    "given_qalign": Column("Q-Align, given", "higher", 3, "not measured here: from the file of --scores"),
}
SPREAD = {
    "pixel_std": Column("pixel std", "lower", 2, "standard deviation over the seeds, mean over pixels, 0..255"),
    "pairwise_lpips": Column("pairwise LPIPS", "lower", 4, "LPIPS (alex) of two seeds, mean of all pairs"),
    "pairwise_identity": Column("pairwise identity", "lower", 4, "1 - cosine of two seeds' vectors, mean of all pairs"),
    "landmark_std": Column("landmark std px", "lower", 3, "of the 68 points over the seeds, RMS, px at 512"),
    "latent_entropy": Column("latent entropy", "lower", 3, "Gaussian estimate, nats a dimension"),
}
DISTRIBUTION = {
    "fid": Column("FID", "lower", 2, "Inception v3 (2015-12-05) features; biased upwards for few pictures"),
    "kid": Column("KID x1000", "lower", 2, "the same features, unbiased, subsets of up to 1,000"),
    "fid_gt": Column("FID to the ground truth", "lower", 2, "as FID, against the paired references"),
    "kid_gt": Column("KID to the ground truth x1000", "lower", 2, "as KID, against the paired references"),
}
COLUMNS = FIDELITY | NATURALNESS | LIKENESS | GIVEN | SPREAD | DISTRIBUTION


def summarise(rows: Iterable[Row]) -> dict[str, dict[str, float | int]]:
    """By column: mean, n (faces that have a value) and sem (standard error of the mean, from 2 faces on).

    A column without any value is left out; ``fallback`` is the mean of a 0/1 mark, see `Evaluator.measure`.
    """
    import numpy as np

    rows = list(rows)
    summary: dict[str, dict[str, float | int]] = {}
    for key in (*FIDELITY, *NATURALNESS, *LIKENESS, *GIVEN, *SPREAD, "fallback"):
        values = np.array([value for row in rows if (value := row.get(key)) is not None], dtype=np.float64)
        if values.size:
            summary[key] = {"mean": float(values.mean()), "n": int(values.size)}
        if values.size > 1 and np.isfinite(values).all():  # PSNR of equal pictures is infinite
            summary[key]["sem"] = float(values.std(ddof=1) / np.sqrt(values.size))
    return summary


def shown(key: str, value: float | None) -> str:
    """A value with its column's digits; nothing for None."""
    return "" if value is None else f"{value:.{COLUMNS[key].digits}f}"


def used(summaries: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns that at least one summary has, in the order of the tables."""
    present = set().union(*(summary.keys() for summary in summaries))
    return [key for key in COLUMNS if key in present]


def markdown(summaries: Mapping[str, Mapping[str, Mapping[str, Any]]], first: str = "system") -> str:
    """One Markdown table: a row for each title, `n` faces, and the columns that have a value; * marks fewer faces."""
    keys = used(summaries.values())
    arrows = {"higher": "↑", "lower": "↓"}
    heads = [first, "n", *(f"{COLUMNS[key].title} {arrows[COLUMNS[key].better]}" for key in keys)]
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join(["---"] + ["---:"] * (len(heads) - 1)) + " |"]
    for title, summary in summaries.items():
        n = max((int(entry["n"]) for entry in summary.values()), default=0)
        cells = [title, str(n)]
        for key in keys:
            entry = summary.get(key)
            fewer = f" ({entry['n']})" if entry and entry["n"] < n else ""
            cells.append(shown(key, entry["mean"]) + fewer if entry else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
