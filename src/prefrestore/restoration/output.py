"""Everything that is written about one picture: the result, what is asked for beside it, and the record, last."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prefrestore.files.atomic import written_beside
from prefrestore.pictures.encode import write_pages, write_photo
from prefrestore.restoration.plan import Task
from prefrestore.restoration.record import FaceRecord, PhotoResult, write_record


@dataclass(kw_only=True)
class Written:
    """One picture's files. made: further keys of the record.

    faces: of all pages, without their pixels. notes: what of the input was not kept; a sentence each.
    """

    task: Task
    crops: bool
    compare: bool
    quality: int | None
    made: Mapping[str, Any]
    files: dict[str, Any] = field(default_factory=dict)
    faces: list[FaceRecord] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def picture(self, result: PhotoResult, *, untouched: bool) -> None:
        """Write a picture of one page. untouched: the input's own bytes are the output, where its name allows it."""
        self._beside(result, "")
        if untouched and not result.restored and self._copy():
            result = replace(result, before=replace(result.before, notes=()))
            notes: tuple[str, ...] = ()
        else:
            notes = write_photo(result.photo, self.task.output, quality=self.quality)
        self.notes = result.before.notes + notes
        self._record(result, notes, {})

    def pages(self, numbers: Sequence[int], restore: Callable[[int], PhotoResult], *, untouched: bool) -> None:
        """Write a TIFF of several pages, each restored when its turn comes and then forgotten."""
        rows: list[dict[str, Any]] = []
        first: list[PhotoResult] = []

        def made() -> Iterator[Any]:
            for number in numbers:
                result = restore(number)
                self._beside(result, f"page{number}_")
                rows.append({"page": number, **result.as_record()})
                if not first:
                    first.append(replace(result, heat=None))
                yield result.photo

        notes = write_pages(made(), self.task.output)
        kept = [note for row in rows for note in row["notes"]]
        if untouched and not any(face.status == "restored" for face in self.faces) and self._copy():
            notes, kept = (), []
        self.notes = tuple(dict.fromkeys([*kept, *notes]))
        of_pages = [{key: row[key] for key in ("page", "input", "output")} for row in rows]
        faces = [{"page": row["page"], **face} for row in rows for face in row["faces"]]
        self._record(first[0], (), {"pages": of_pages, "faces": faces, "notes": list(self.notes)})

    def _beside(self, result: PhotoResult, prefix: str) -> None:
        task = self.task
        if self.crops:
            self.files["crops"] = task.crops.name
            for face in result.restored:
                for name, pixels in (("before", face.before), ("after", face.after)):
                    if pixels is not None:
                        path = task.crops / f"{prefix}{face.index}_{name}.png"
                        write_photo(result.photo.about(pixels), path)
        beside = {"compare": (task.compare, result.compare() if self.compare else None)}
        beside["uncertainty"] = (task.uncertainty, result.heat)
        for kind, (path, pixels) in beside.items():
            if pixels is not None:
                named = path.with_name(f"{path.stem}{'_' if prefix else ''}{prefix.rstrip('_')}{path.suffix}")
                write_photo(result.photo.about(pixels), named)
                self.files[kind] = [*self.files.get(kind, []), named.name]
        self.faces += [replace(face, before=None, after=None, spread=None) for face in result.faces]
        page = f"{prefix.rstrip('_')} " if prefix else ""
        self.warnings += tuple(f"{page}{warning}" for warning in result.warnings)

    def _copy(self) -> bool:
        """Not even encoded again: the output is the input's bytes. Whether its name allows that."""
        if self.task.output.suffix != self.task.source.suffix:
            return False
        with written_beside(self.task.output) as part:
            shutil.copyfile(self.task.source, part)
        return True

    def _record(self, result: PhotoResult, notes: tuple[str, ...], more: Mapping[str, Any]) -> None:
        files = {"output": self.task.output.name, **self.files}
        # Last: a record says that everything else is there, which --skip-existing relies on.
        write_record(result, self.task.record, notes=notes, made={**self.made, "files": files, **more})
