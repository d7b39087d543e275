"""Several restorations in one zip file."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path

from prefrestore.serve.composing import result_file
from prefrestore.serve.schemas import Restoration
from prefrestore.serve.store import output_suffix


def archive(chosen: Sequence[tuple[Restoration, Path]], path: Path, pictures: threading.BoundedSemaphore) -> None:
    """Write the pictures and their records into the zip file ``path``.

    Names in it are those of the photos, without any folder; of two equal ones (also where only case differs) the second
    becomes ``NAME-2``.

    Args:
        chosen: restorations that are done, with their folders.
        pictures: held while a picture is put together.
    """
    taken: set[str] = set()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as out:
        for one, folder in chosen:
            stem, suffix = Path(one.name).stem, output_suffix(one)
            name, number = stem, 1
            while name.casefold() in taken:
                number += 1
                name = f"{stem}-{number}"
            taken.add(name.casefold())
            with pictures:
                made = result_file(folder, one)
            out.write(made, f"{name}{suffix}")
            out.write(made.with_suffix(".json"), f"{name}.json")
