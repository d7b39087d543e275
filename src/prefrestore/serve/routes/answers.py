"""What several routes share: parameters, pictures as answers, problems in the OpenAPI document."""

from __future__ import annotations

import http
import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Path as InPath
from fastapi import Query
from fastapi.responses import Response
from starlette.background import BackgroundTask

from prefrestore.serve.problems import MEDIA_TYPE
from prefrestore.serve.schemas import ProblemDocument
from prefrestore.serve.service import Service

ID = Annotated[str, InPath(pattern="^[0-9a-f]{32}$", description="Of a restoration.")]
Number = Annotated[int, InPath(ge=0, le=10_000, description="Of a face, from the left, counted from 0.")]
Side = Annotated[int | None, Query(ge=16, le=65_500, description="Most pixels of the longer side.")]
Version = Annotated[
    int | None, Query(ge=0, description="The document's version; the answer may then be kept for ever.")
]
Which = Literal["before", "after"]
Kind = Literal["png", "jpeg"]
FOREVER = "private, max-age=31536000, immutable"


def content(description: str, *kinds: str) -> dict[int | str, dict[str, Any]]:
    """What a route answers when all is well, for its ``responses``."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    told = {kind: {} if kind in ("application/json", "text/event-stream") else binary for kind in kinds}
    return {200: {"content": told, "description": description}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These problems for a route's ``responses``, and those that every route has."""
    content = {MEDIA_TYPE: {"schema": ProblemDocument.model_json_schema()}}
    return {
        status: {"description": http.HTTPStatus(status).phrase, "content": content}
        for status in sorted({401, 403, 421, 422, *statuses})
    }


def cached(version: int | None) -> dict[str, str]:
    """A picture that is named with its version never changes."""
    return {"Cache-Control": "no-cache" if version is None else FOREVER}


@contextmanager
def temporary(service: Service, suffix: str) -> Iterator[tuple[Path, BackgroundTask]]:
    """A file in the service's private folder, and what deletes it once it was sent; deleted at once on an error."""
    with tempfile.NamedTemporaryFile(dir=service.settings.folder, prefix=".sent-", suffix=suffix, delete=False) as file:
        path = Path(file.name)
    try:
        yield path, BackgroundTask(path.unlink, missing_ok=True)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def jpeg(service: Service, write: Callable[[Path], object], headers: dict[str, str]) -> Response:
    """The JPEG that ``write`` writes, as an answer."""
    with tempfile.TemporaryDirectory(dir=service.settings.folder, prefix=".made-") as folder:
        path = Path(folder) / "picture.jpg"
        write(path)
        return Response(path.read_bytes(), media_type="image/jpeg", headers=headers)


def picture(pixels: Any, icc: bytes | None, headers: dict[str, str], kind: Kind = "png") -> Response:
    """A picture (H x W or H x W x 3, uint8 or uint16) as an answer, with 8 bits: quick, for one look."""
    import numpy as np
    from PIL import Image

    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    how = {"compress_level": 1} if kind == "png" else {"quality": 95, "subsampling": 0}
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, icc_profile=icc, **how)
    return Response(out.getvalue(), media_type=f"image/{kind}", headers=headers)
