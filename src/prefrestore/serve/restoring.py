"""What the worker does for a photo: restore it, guess again, map the uncertainty."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from prefrestore.errors import PrefRestoreError
from prefrestore.files.atomic import written_beside
from prefrestore.files.fingerprints import file_hash
from prefrestore.restoration.options import RestoreOptions
from prefrestore.serve import facefiles
from prefrestore.serve.jobs import Cancelled, Job
from prefrestore.serve.model import Model
from prefrestore.serve.problems import log_defect, logger
from prefrestore.serve.schemas import Face, Guess, GuessRequest, MapNumbers, Options, Output, Progress, Restoration
from prefrestore.serve.store import Store, output_name, output_suffix, suffix_of
from prefrestore.serve.watched import Finder, Known, Watched

DEFECT = "the service met an error of its own with this photo; its log says where"
MAP_SAMPLES = 4
# Of a face that somebody asks for by itself: drawn once, and at full strength, whatever would be made of it.
ALONE = {"strength": None, "keep_likeness": False, "samples": None, "uncertainty": False, "choice": None}


class Restorer:
    """Jobs for the one worker; what goes wrong is told by the restoration itself."""

    def __init__(self, store: Store, model: Model) -> None:
        self.store, self.model = store, model

    def restore(self, job: Job) -> None:
        """From the upload to the result."""
        started = time.monotonic()
        try:
            with self.store.change(job.about) as one:
                one.status, one.progress = "running", Progress(stage="finding")
            self._need_model()
            self._restore(job, self.store.get(job.about), started)
            logger.info("restoration %s is done", job.about)
        except Exception as error:  # noqa: BLE001 (told by the document, and a defect by the log)
            message = _sentence(error)
            if message is not None and self._is_there(job):
                with self.store.change(job.about) as one:
                    one.status, one.message, one.progress = "failed", message, Progress()
        self.store.clear_remains(job.about)

    def _need_model(self) -> None:
        if self.model.state.status == "failed":
            raise PrefRestoreError(self.model.state.message)

    def _is_there(self, job: Job) -> bool:
        return any(one.id == job.about for one in self.store.all())

    def _restore(self, job: Job, one: Restoration, started: float) -> None:
        from prefrestore.pictures.encode import write_photo
        from prefrestore.restoration.photo import restore_photo
        from prefrestore.restoration.record import write_record

        folder = self.store.folder(one.id)
        photo = read_original(folder, one)
        options = restore_options(one.options)

        def at(face: int) -> None:
            with self.store.change(one.id, saved=False) as now:
                now.progress.stage, now.progress.face = "restoring", face

        result = restore_photo(
            photo,
            Watched(self.model.pipeline, job, at),
            options=options,
            detector=Finder(self.model.detector, job, lambda count: self._found(one.id, count)),  # type: ignore[arg-type]
            embedder=self.model.embedder,
        )
        job.check()
        with self.store.change(one.id, saved=False) as now:
            now.progress.stage = "writing"

        output, suffix = folder / f"photo{output_suffix(one)}", suffix_of(one.name)
        notes: tuple[str, ...] = ()
        if not result.restored and options.scale == 1 and output.suffix == suffix:
            # As on the command line: the output is the input's bytes.
            with written_beside(output) as part:
                shutil.copyfile(folder / f"original{suffix}", part)
            result = replace(result, before=replace(result.before, notes=()))
        else:
            notes = write_photo(result.photo, output, quality=one.options.quality)
        faces = [facefiles.as_face(record, one.options) for record in result.faces]
        without = result.photo.pixels if not result.restored else without_faces(photo, options, result)
        for record, face in zip(result.faces, faces, strict=True):
            facefiles.keep_before(folder, result, record)
            if record.index in result.patches:
                facefiles.keep_guess(folder, result, record.index, 0)
                face.region = facefiles.keep_place(folder, result, without, record.index)
                if record.spread is not None and record.spread.map is not None:
                    face.uncertainty = _keep_map(folder, face, record.spread.map)
        made = {"input_sha256": file_hash(folder / f"original{suffix}"), "files": {"output": output_name(one)}}
        write_record(result, folder / "photo.json", notes=notes, made=made)
        with self.store.change(one.id) as now:
            now.status, now.progress = "done", Progress(stage="done", faces=len(faces))
            now.outcome = "restored" if result.restored else "unchanged" if faces else "no face"
            now.message = _why(one.name, faces) if not result.restored else ""
            now.faces, now.output, now.input.size = faces, Output(size=result.photo.size), photo.size
            now.seconds = round(time.monotonic() - started, 3)

    def _found(self, id: str, count: int) -> None:
        with self.store.change(id, saved=False) as now:
            now.progress.faces = count

    def guess(self, job: Job, index: int, asked: GuessRequest, seeds: Sequence[int]) -> None:
        """More restorations of one face, one a seed."""
        from prefrestore.models.adapter import adapter_names, using_adapter

        def work(one: Restoration, photo: Any) -> None:
            folder, transformer = self.store.folder(one.id), getattr(self.model.pipeline, "transformer", None)
            given = one.options.model_copy(
                update={
                    name: value
                    for name in ("prompt", "fidelity", "steps")
                    if (value := getattr(asked, name)) is not None
                }
                | ALONE
                | {"faces": [index]}
            )
            for seed in seeds:
                job.check()
                options = given.model_copy(update={"seed": seed})
                if asked.preference or not adapter_names(transformer):
                    result = self._once(job, one, photo, options)
                else:
                    with using_adapter(transformer, None):
                        result = self._once(job, one, photo, options)
                self._keep(folder, one.id, index, result, photo, options, asked.preference)

        self._work(job, work)

    def map(self, job: Job, index: int) -> None:
        """The uncertainty of one face."""

        def work(one: Restoration, photo: Any) -> None:
            given = ALONE | {"faces": [index], "samples": MAP_SAMPLES, "uncertainty": True}
            result = self._once(job, one, photo, one.options.model_copy(update=given))
            spread = result.faces[index].spread
            with self.store.change(one.id) as now:
                face = now.faces[index]
                face.uncertainty = _keep_map(self.store.folder(one.id), face, spread.map, result.patches[index].pixels)

        self._work(job, work)

    def _work(self, job: Job, work: Any) -> None:
        """Work on a finished restoration: its document says how it goes."""
        try:
            with self.store.change(job.about) as one:
                if one.work is not None:
                    one.work.status = "running"
            self._need_model()
            one = self.store.get(job.about)
            work(one, read_original(self.store.folder(one.id), one))
            message = None
        except Exception as error:  # noqa: BLE001 (told by the document, and a defect by the log)
            message = _sentence(error)
        if self._is_there(job) and not job.is_cancelled:
            with self.store.change(job.about) as one:
                if message is None or one.work is None:
                    one.work = None
                else:
                    one.work.status, one.work.message = "failed", message
        self.store.clear_remains(job.about)

    def _once(self, job: Job, one: Restoration, photo: Any, options: Options) -> Any:
        from prefrestore.restoration.photo import restore_photo

        return restore_photo(
            photo,
            Watched(self.model.pipeline, job, lambda face: None),
            options=restore_options(options),
            detector=Known(one.faces, self.model.detector),  # type: ignore[arg-type]
            embedder=self.model.embedder,
        )

    def _keep(
        self, folder: Path, id: str, index: int, result: Any, photo: Any, options: Options, preference: bool
    ) -> None:
        record = result.faces[index]
        with self.store.change(id) as now:
            face = now.faces[index]
            number = len(face.guesses)
            facefiles.keep_guess(folder, result, index, number)
            if face.region is None:
                without = without_faces(photo, restore_options(options), result)
                face.region = facefiles.keep_place(folder, result, without, index)
            face.guesses.append(
                Guess(
                    number=number,
                    seed=options.seed,
                    prompt=options.prompt,
                    fidelity=options.fidelity,
                    steps=options.steps,
                    preference=preference,
                    similarity=record.similarity,
                    warnings=list(record.warnings),
                )
            )
            if face.guess is None:
                now.version += 1
                face.guess, face.on, face.late, face.status, face.reason = 0, True, True, "restored", None
                face.similarity, face.warnings = record.similarity, list(record.warnings)
            if now.work is not None:
                now.work.done += 1


def read_original(folder: Path, one: Restoration) -> Any:
    """The upload as a Photo that bears the client's name for it."""
    from prefrestore.pictures.read import read_photo

    path = folder / f"original{suffix_of(one.name)}"
    try:
        return replace(read_photo(path), path=Path(one.name))
    except PrefRestoreError as error:
        raise type(error)(str(error).replace(str(path), one.name)) from error


def restore_options(options: Options) -> Any:
    """`prefrestore.restoration.options.RestoreOptions`; InvalidInputError where they contradict each other."""
    return RestoreOptions(**options.for_restoring())


def without_faces(photo: Any, options: Any, result: Any) -> Any:
    """The output's pixels as if no face had been restored."""
    from prefrestore.restoration.render import render, render_aligned_at

    if options.aligned:
        return render_aligned_at(photo, None, 0.0, result.photo.size[0]).pixels
    return render(photo, [], options, one_channel=result.one_channel).pixels


def _keep_map(folder: Path, face: Face, values: Any, pixels: Any = None) -> MapNumbers:
    from prefrestore.pictures.encode import write_photo
    from prefrestore.pictures.read import as_photo
    from prefrestore.restoration.uncertainty.heatmap import overlay

    if pixels is None:
        pixels = facefiles.load_guess(folder, face.index, 0)
    shown = np.round(np.clip(overlay(pixels, values), 0, 1) * 255).astype(np.uint8)
    write_photo(as_photo(shown), facefiles.face_folder(folder, face.index) / "uncertainty.png")
    return MapNumbers(mean=round(float(values.mean()), 6))


def _why(name: str, faces: Sequence[Face]) -> str:
    if not faces:
        return f"{name}: no face was found"
    return f"{name}: no face was restored ({'; '.join(f'face {face.index}: {face.reason}' for face in faces)})"


def _sentence(error: Exception) -> str | None:
    """What a restoration says about an error; None when it was not wanted any more."""
    if isinstance(error, Cancelled):
        return None
    if isinstance(error, PrefRestoreError):
        return str(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory for this picture"
    log_defect(error)
    return DEFECT
