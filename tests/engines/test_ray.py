"""``--engine ray`` on a local cluster of two workers, with the tiny model: the same bytes, whoever dies."""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from prefrestore.cli import app
from prefrestore.engines.manifest import Manifest
from prefrestore.engines.ray_data import restore_on_ray
from prefrestore.errors import MissingDependencyError
from prefrestore.restoration.batch import Outcome, count
from prefrestore.restoration.options import RestoreOptions
from prefrestore.restoration.plan import Task, make_plan

GOOD = [f"p{number}" for number in range(6)]
KILLED, KILLER = "p2", "p4"


def test_without_ray_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "a.png").write_bytes(b"")
    plan = make_plan([tmp_path / "a.png"], tmp_path / "out")
    manifest = Manifest(tmp_path / "out" / "manifest.jsonl")
    with pytest.raises(MissingDependencyError, match=r"prefrestore\[ray\]"):
        list(restore_on_ray(plan.tasks, recipe(), manifest=manifest, settings={}))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    ray.init(num_cpus=2, object_store_memory=200 * 2**20, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos with a face or two, a file that is no picture, and a picture of nobody."""
    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("photos")
    whole = Image.fromarray(data.astronaut()).crop((96, 0, 352, 256))
    for number, name in enumerate(GOOD):
        small = whole.rotate(2 * number).resize((44 + 2 * number,) * 2, Image.Resampling.BOX)
        face = np.asarray(small.resize((192, 192), Image.Resampling.BICUBIC))
        suffix = (".png", ".jpg", ".webp")[number % 3]
        Image.fromarray(np.hstack([face] * (1 + number % 2))).save(folder / f"{name}{suffix}")
    (folder / "bad.jpg").write_bytes(b"no picture")
    Image.fromarray(np.full((50, 50, 3), 99, np.uint8)).save(folder / "nobody.png")
    return folder


def restore(*arguments: str | Path) -> tuple[int, str]:
    fixed = ["restore", "--preset", "tiny", "--device", "cpu"]
    result = CliRunner().invoke(app, [*fixed, *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def files(folder: Path, *but: str) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name.split(".")[0] not in but)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def locally(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the engine of this process makes of the photos."""
    folder = tmp_path_factory.mktemp("locally")
    code, text = restore(photos, "-o", folder)
    assert code == 1 and "6 restored, 1 without a face, 1 failed" in text
    return folder


def recipe() -> Any:
    """What ``prefrestore restore --preset tiny --device cpu`` asks for."""
    from prefrestore.restoration.recipe import Recipe

    return Recipe(
        options=RestoreOptions(),
        device="cpu",
        dtype="float32",
        preset="tiny",
        model=None,
        preference=True,
        background=None,
        crops=False,
        compare=False,
        batch_faces=None,
    )


def mortal(recipe: Any, folder: Path) -> Callable[[], Callable[[Task], Outcome]]:
    """The recipe's restorer; `KILLED` ends the worker the first time, `KILLER` always. ``folder/log`` tells."""

    def make() -> Callable[[Task], Outcome]:
        import signal

        def note(*words: object) -> None:
            with (folder / "log").open("a") as log:
                log.write(" ".join(map(str, words)) + "\n")

        restorer = recipe()

        def work(task: Task) -> Outcome:
            name = task.source.stem
            note("begun", name, os.getpid())
            first = not (folder / name).exists()
            (folder / name).touch()
            if name == "p4" or (name == "p2" and first):
                os.kill(os.getpid(), signal.SIGKILL)
            outcome = restorer(task)
            note("done", name, os.getpid())
            return outcome

        return work

    return make


def test_workers_die_and_nothing_is_lost_and_nothing_done_twice(
    cluster: None, photos: Path, locally: Path, tmp_path: Path
) -> None:
    out, notes = tmp_path / "out", tmp_path / "notes"
    notes.mkdir()
    tasks = make_plan([photos], out).tasks
    manifest = Manifest(out / "manifest.jsonl")
    settings = recipe().settings()
    made = list(restore_on_ray(tasks, mortal(recipe(), notes), manifest=manifest, settings=settings, workers=2))

    assert {outcome.source for outcome in made} == {task.source for task in tasks} and len(made) == len(tasks)
    assert count(made) == {"restored": 5, "no face": 1, "failed": 2}
    told = {outcome.source.stem: outcome.message for outcome in made if outcome.status == "failed"}
    assert "set aside, the worker died 3 times" in told[KILLER] and "bad.jpg" in told["bad"]

    log = [line.split() for line in (notes / "log").read_text().splitlines()]
    begun, done = (Counter(name for what, name, _ in log if what == word) for word in ("begun", "done"))
    assert begun[KILLED] >= 2 and begun[KILLER] == 3, "they did kill"
    assert len({pid for _, _, pid in log}) >= 4, "and others took over"
    assert done == Counter([*(name for name in GOOD if name != KILLER), "nobody"]), "each photo was done once"

    lines = [json.loads(line) for line in manifest.path.read_text().splitlines()][1:]
    ends = Counter(Path(line["source"]).stem for line in lines if line["status"] != "lost")
    assert ends == Counter([*GOOD, "bad", "nobody"]), "the manifest tells each end once"
    assert {Path(line["source"]).stem for line in lines if line["status"] == "lost"} >= {KILLED, KILLER}
    assert files(out, "manifest") == files(locally, KILLER), "the bytes of a run in one process"

    # The same command again: what is done stays, what killed stays aside, what failed is tried again.
    before = files(out, "manifest")
    (out / "p0.json").unlink()
    code, text = restore(photos, "-o", out, "--engine", "ray", "--workers", "2", "--skip-existing")
    assert code == 1 and "1 restored, 5 there already, 2 failed" in text and "set aside" in text, text
    assert files(out, "manifest") == before


def test_faces_of_several_photos_in_one_call_give_the_same_bytes(cluster: None, photos: Path, tmp_path: Path) -> None:
    options = ("--batch-faces", "4", "--jobs", "3", "--crops", "--compare")
    assert restore(photos, "-o", tmp_path / "one", *options)[0] == 1
    code, text = restore(photos, "-o", tmp_path / "ray", *options, "--engine", "ray", "--workers", "2")
    assert code == 1 and "6 restored, 1 without a face, 1 failed" in text, text
    assert files(tmp_path / "one") == files(tmp_path / "ray", "manifest")
    assert len(files(tmp_path / "one")) > 4 * len(GOOD)


def test_a_worker_that_cannot_start_ends_the_run_with_its_reason(cluster: None, photos: Path, tmp_path: Path) -> None:
    from prefrestore.errors import PrefRestoreError

    with pytest.raises(PrefRestoreError, match="broke off.*hashes.json"):
        restore(photos, "-o", tmp_path / "out", "--model", tmp_path, "--engine", "ray")
    assert files(tmp_path / "out", "manifest") == {}
