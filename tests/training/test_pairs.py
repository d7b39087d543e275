"""The cache of pairs: what worker processes prepare is what the main process would have."""

from pathlib import Path

import numpy as np

from prefrestore.training.pairs import CHUNK, cached_pairs, degraded_batch


def test_workers_prepare_the_same_pairs(tmp_path: Path) -> None:
    faces = np.random.default_rng(0).integers(0, 256, (2 * CHUNK, 16, 16, 3), dtype=np.uint8)
    count = CHUNK + 3
    here: list[int] = []

    def prepare(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        here.append(first)
        return degraded_batch(faces[first:last], "training", np.random.default_rng([1, first]))

    def compute(pair: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
        return {"lq": pair[0], "half": pair[1] / 255}

    def made(name: str, workers: int) -> dict[str, np.ndarray]:
        quiet = lambda _: None  # noqa: E731
        return cached_pairs(tmp_path / name, count, prepare, compute, key={"seed": 1}, workers=workers, log=quiet)

    alone = made("alone", 0)
    assert here == [0, CHUNK]
    together = made("together", 2)
    assert here == [0, CHUNK]  # nothing was prepared in this process
    assert alone["lq"].shape == (count, 16, 16, 3) and alone["half"].dtype == np.float16
    for name, values in alone.items():
        assert np.array_equal(values, together[name])
    assert np.array_equal(made("together", 2)["lq"], alone["lq"])  # and nothing is left to prepare
