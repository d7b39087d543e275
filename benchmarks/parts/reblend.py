"""How long a changed strength takes, for serve.py: from the choice to the pixels, without a model."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def reblend() -> None:
    """From a new strength to the new pixels on 4000 x 3000 px, for a usual face and for one that fills the photo.

    In this process, through the whole application and without its model: what a model drew is kept on disk, and whose
    drawing it is makes no difference. The processor's time is told too, because other work makes the clock slow.
    """
    from fastapi.testclient import TestClient

    from prefrestore.serve.app import create_app
    from prefrestore.serve.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(folder=Path(folder), preset="tiny", device="cpu", example=False))
        client = TestClient(app, base_url="http://127.0.0.1:8420")
        for side in (500, 2800):
            id, region = drawn(app.state.service, side)
            wall, worked, whole = [], [], []
            for number in range(20):
                started, busy = time.perf_counter(), time.process_time()
                changes = {"faces": [{"index": 0, "strength": (number + 1) / 21}]}
                client.patch(f"/api/v1/restorations/{id}", json=changes).raise_for_status()
                client.get(f"/api/v1/restorations/{id}/faces/0/region?side=768&format=jpeg").raise_for_status()
                wall.append(1000 * (time.perf_counter() - started))
                worked.append(1000 * (time.process_time() - busy))
            for number in range(3):
                changes = {"faces": [{"index": 0, "strength": (number + 1) / 30}]}
                client.patch(f"/api/v1/restorations/{id}", json=changes).raise_for_status()
                busy = time.process_time()
                client.get(f"/api/v1/restorations/{id}/photo").raise_for_status()
                whole.append(1000 * (time.process_time() - busy))
            print(
                f"12 MP, a face of {region[2]} x {region[3]} px: strength to pixels {statistics.median(wall):.0f} "
                f"ms ({statistics.median(worked):.0f} ms of the processor's); the whole file anew "
                f"{statistics.median(whole):.0f} ms of the processor's"
            )


def drawn(service: Any, side: int) -> tuple[str, tuple[int, int, int, int]]:
    """A photo of 12 megapixels that is restored already: its id, and where its face of ``side`` px is."""
    from prefrestore.faces import blend
    from prefrestore.pictures.photo import Photo
    from prefrestore.restoration.record import FaceRecord, PhotoResult, write_record
    from prefrestore.serve import facefiles, uploads
    from prefrestore.serve.schemas import Options, Output

    crop = 512  # px, as the bundled model draws
    pixels = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), np.uint8)
    face = np.random.default_rng(1).random((crop, crop, 3), dtype=np.float32)
    small = np.round(face * 255).astype(np.uint8)
    record = FaceRecord(
        index=0,
        box=(100.0, 100.0, float(side), float(side)),
        points=((0.0, 0.0),) * 5,
        score=0.9,
        quality=0.3,
        yaw=0.0,
        photo_per_model=side / crop,
        status="restored",
        before=small,
        after=small,
    )
    matrix = np.array([[crop / side, 0, -100 * crop / side], [0, crop / side, -100 * crop / side]])
    result = PhotoResult(
        photo=Photo(pixels=pixels),
        before=Photo(pixels=pixels, path=Path("large.jpg")),
        faces=(record,),
        settings={"aligned": False},
        patches={0: blend.Patch(face, matrix, blend.face_mask(crop))},
    )
    one = service.store.new(
        "large.jpg",
        lambda path: Image.fromarray(pixels).save(path, quality=90),
        lambda path: uploads.look(path, "large.jpg"),
        Options(),
    )
    folder = service.store.folder(one.id)
    facefiles.keep_before(folder, result, record)
    facefiles.keep_guess(folder, result, 0, 0)
    shown = facefiles.as_face(record, Options())
    shown.region = facefiles.keep_place(folder, result, pixels, 0)
    write_record(result, folder / "photo.json")
    with service.store.change(one.id) as now:
        now.status, now.faces, now.output = "done", [shown], Output(size=(4000, 3000))
    return one.id, shown.region
