"""A photo on its way in: streamed to disk, counted, and looked at before anything is decoded."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.types import Message

from prefrestore.serve.problems import Problem
from prefrestore.serve.schemas import Input, Options

QUIET = 30.0
"""Seconds that an upload may pause."""
ROOM = 100_000
"""Bytes of a request beside the photo's own."""
MOST_OPTIONS = 64_000
"""Bytes of the options' text."""


class Upload(NamedTuple):
    """What a client sent."""

    name: str
    file: BinaryIO
    options: Options


@asynccontextmanager
async def uploaded(request: Request, most: int) -> AsyncIterator[Upload]:
    """The parts ``photo`` and ``options`` of a multipart body; large ones lie in an unnamed file of the system's.

    Raises:
        Problem: 411, 413, 415 or 422 by what is wrong; 408 when nothing more came.
        pydantic.ValidationError: the options.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise Problem(415, "a photo is sent as multipart/form-data, in a part named 'photo'")
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > most + ROOM:
        raise too_large(most)
    request = Request(request.scope, counted(request, most))
    async with request.form(max_files=1, max_fields=1, max_part_size=MOST_OPTIONS) as form:
        photo, options = form.get("photo"), form.get("options", "{}")
        if not isinstance(photo, UploadFile):
            raise Problem(422, "the part 'photo' is missing, or is not a file")
        if not isinstance(options, str):
            raise Problem(422, "the part 'options' is a JSON text, not a file")
        yield Upload(photo.filename or "photo", photo.file, Options.model_validate_json(options))


def counted(request: Request, most: int) -> Callable[[], Awaitable[Message]]:
    """The request's ``receive``, which gives up on a body that is too long or does not come."""
    seen = 0

    async def receive() -> Message:
        nonlocal seen
        try:
            message = await asyncio.wait_for(request.receive(), QUIET)
        except asyncio.TimeoutError:
            raise Problem(408, f"nothing came for {QUIET:.0f} seconds") from None
        seen += len(message.get("body", b""))
        if seen > most + ROOM:
            raise too_large(most)
        return message

    return receive


def too_large(most: int) -> Problem:
    """413."""
    return Problem(413, f"an upload may have {most / 1e6:g} MB, and this one has more", {"Connection": "close"})


def copy(file: BinaryIO, path: Path, most: int) -> None:
    """Write the upload to its place; Problem 413, 422 for one that is too long, or empty."""
    file.seek(0, 2)
    if file.tell() > most:
        raise too_large(most)
    if file.tell() == 0:
        raise Problem(422, "the photo is empty")
    file.seek(0)
    with path.open("wb") as out:
        shutil.copyfileobj(file, out, 1 << 20)


def look(path: Path, name: str) -> Input:
    """What the header of a picture says; Problem 413, 422 with the sentence that reading it would end in."""
    from prefrestore.errors import ImageReadError
    from prefrestore.pictures.read import read_header

    try:
        header = read_header(path)
    except ImageReadError as error:
        raise Problem(422, str(error).replace(str(path), name)) from error
    return Input(size=header.size, format=header.format, bytes=path.stat().st_size)
