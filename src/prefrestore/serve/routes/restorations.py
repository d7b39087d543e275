"""Photos in, restorations out."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Annotated, Any, NoReturn

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

from prefrestore.serve.archive import archive
from prefrestore.serve.jobs import Job
from prefrestore.serve.problems import Problem
from prefrestore.serve.routes.answers import ID, Side, Version, Which, cached, content, jpeg, problems, temporary
from prefrestore.serve.schemas import Changes, QueueState, Restoration, Restorations
from prefrestore.serve.service import Service, check_done
from prefrestore.serve.store import output_name, suffix_of
from prefrestore.serve.uploads import uploaded

WAIT = re.compile(r'\s*wait\s*(?:=\s*"?(\d{1,6})"?\s*)?(?:;.*)?', re.IGNORECASE)
OTHER = "application/octet-stream"
"""Of pictures that few browsers show, see `media_type`."""
BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["photo"],
                "properties": {
                    "photo": {"type": "string", "format": "binary"},
                    "options": {"type": "string", "description": "JSON: the schema Options", "example": '{"seed": 7}'},
                },
            },
            "encoding": {"options": {"contentType": "text/plain"}},
        }
    },
}


def router(service: Service) -> APIRouter:
    """The routes below ``/restorations``."""
    routes = APIRouter(tags=["restorations"])
    store = service.store

    @routes.post(
        "/restorations",
        status_code=202,
        response_model=Restoration,
        openapi_extra={
            "requestBody": BODY,
            "parameters": [
                {
                    "name": "Prefer",
                    "in": "header",
                    "description": "`wait` or `wait=SECONDS`: answer with the finished picture (RFC 7240).",
                    "schema": {"type": "string", "pattern": "^[ -~]*$"},
                }
            ],
        },
        responses=content("With `Prefer: wait`: the picture", "image/*", OTHER)
        | problems(400, 408, 413, 415, 422, 429, 503, 507),
        summary="Restore a photo",
    )
    async def restore(request: Request) -> Response:
        service.model.check()
        seconds = preferred_wait(request)
        with service.jobs.place():
            async with uploaded(request, service.settings.max_bytes) as upload:
                job = await run_in_threadpool(service.add, upload.name, upload.file, upload.options)
        if seconds is not None and await finished(request, service, job, seconds):
            one = await run_in_threadpool(store.get, job.about)
            if one.status == "failed":
                raise Problem(422, one.message)
            return await run_in_threadpool(result, one, {"Preference-Applied": "wait"})
        if await request.is_disconnected():
            await left(service, job)
        one = service.shown(await run_in_threadpool(store.get, job.about))
        return JSONResponse(one.model_dump(mode="json"), 202, {"Location": f"/api/v1/restorations/{one.id}"})

    @routes.post(
        "/restorations/example",
        status_code=202,
        responses=problems(429, 503, 507),
        summary="Restore the example photo",
    )
    def example() -> Restoration:
        service.model.check()
        with service.jobs.place():
            job = service.example()
        return service.shown(store.get(job.about))

    @routes.get("/restorations", responses=problems(), summary="The queue and what is done, newest first")
    def listing() -> Restorations:
        queue = QueueState(length=len(service.jobs), limit=service.jobs.limit)
        return Restorations(restorations=[service.shown(one) for one in store.all()], queue=queue)

    @routes.get(
        "/restorations.zip",
        response_class=Response,
        responses=content("Pictures and records", "application/zip") | problems(404, 409),
        summary="Finished pictures with their records",
    )
    def everything(
        id: Annotated[
            list[ID] | None, Query(max_length=1000, description="Only these; else all that are done.")
        ] = None,
    ) -> Response:
        done = [one for one in store.all() if one.status == "done"]
        chosen = [store.get(one) for one in dict.fromkeys(id)] if id else done
        for one in chosen:
            check_done(one)
        with temporary(service, ".zip") as (path, after):
            archive([(one, store.folder(one.id)) for one in chosen], path, service.pictures)
            return FileResponse(path, media_type="application/zip", filename="restored.zip", background=after)

    @routes.get("/restorations/{id}", responses=problems(404), summary="How it is")
    def one(id: ID) -> Restoration:
        return service.shown(store.get(id))

    @routes.patch("/restorations/{id}", responses=problems(400, 404, 409), summary="Other strengths; no model runs")
    def change(id: ID, changes: Changes) -> Restoration:
        return service.change(id, changes)

    @routes.delete("/restorations/{id}", status_code=204, responses=problems(404), summary="Cancel and remove")
    def remove(id: ID) -> None:
        service.remove(id)

    @routes.post(
        "/restorations/{id}/retry",
        status_code=202,
        responses=problems(404, 409, 429, 503),
        summary="A failed one again",
    )
    def retry(id: ID) -> Restoration:
        service.model.check()
        with service.jobs.place():
            return service.retry(id)

    @routes.get(
        "/restorations/{id}/events",
        response_class=StreamingResponse,
        responses=content("Until it is done, failed or removed", "text/event-stream") | problems(404),
        summary="Its progress, as server-sent events",
    )
    async def events(id: ID) -> StreamingResponse:
        await run_in_threadpool(store.get, id)

        def is_last(event: Any) -> bool:
            return event.name == "removed" or json.loads(event.data)["status"] in ("done", "failed")

        def first() -> list[Any]:
            return [service.event(one) for one in store.all() if one.id == id]

        stream = service.broadcast.stream(first, about=id, is_last=is_last)
        return StreamingResponse(stream, media_type="text/event-stream")

    @routes.get(
        "/restorations/{id}/photo",
        response_class=Response,
        responses=content("In its own format", "image/*", OTHER) | problems(404, 409),
        summary="The restored picture",
    )
    def photo(id: ID, request: Request, v: Version = None) -> Response:
        return result(store.get(id), cached(v))

    def result(one: Restoration, headers: dict[str, str]) -> Response:
        from prefrestore.serve.composing import result_file

        check_done(one)
        with service.pictures:
            path = result_file(store.folder(one.id), one)
        headers = {"Location": f"/api/v1/restorations/{one.id}", **headers}
        return FileResponse(path, filename=output_name(one), headers=headers, media_type=media_type(path))

    @routes.get(
        "/restorations/{id}/original",
        response_class=Response,
        responses=content("The uploaded bytes", "image/*", OTHER) | problems(404),
        summary="The photo as it came",
    )
    def original(id: ID) -> Response:
        one = store.get(id)
        path = store.folder(id) / f"original{suffix_of(one.name)}"
        return FileResponse(path, filename=one.name, media_type=media_type(path))

    @routes.get(
        "/restorations/{id}/record",
        responses=content("The record", "application/json") | problems(404, 409),
        summary="How it was made",
    )
    def record(id: ID) -> Response:
        from prefrestore.serve.composing import result_file

        one = store.get(id)
        check_done(one)
        with service.pictures:
            path = result_file(store.folder(id), one).with_suffix(".json")
        return FileResponse(path, filename=f"{Path(one.name).stem}.json", media_type="application/json")

    @routes.get(
        "/restorations/{id}/view/{which}",
        response_class=Response,
        responses=content("A JPEG", "image/jpeg") | problems(404, 409, 422),
        summary="Before or after, for looking at",
    )
    def view(id: ID, which: Which, side: Side = None, v: Version = None) -> Response:
        from prefrestore.pictures.read import read_photo
        from prefrestore.serve import composing
        from prefrestore.serve.restoring import read_original

        one, folder = store.get(id), store.folder(id)
        if which == "after":
            check_done(one)
        with service.pictures:
            if which == "before":
                shown = read_original(folder, one)
            else:
                shown = read_photo(composing.result_file(folder, one))
            return jpeg(service, lambda path: composing.view(shown, side, path), cached(v))

    return routes


def media_type(path: Path) -> str:
    """By the ending; never one that a browser would run."""
    from prefrestore.pictures.formats import FORMATS

    kind = FORMATS.get(path.suffix.lower())
    known = kind in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "BMP")
    return f"image/{kind.lower()}" if known and kind else OTHER


def preferred_wait(request: Request) -> float | None:
    """Seconds of ``Prefer: wait=SECONDS``; without a number as long as it takes; None when it is not preferred."""
    for preference in ",".join(request.headers.getlist("prefer")).split(","):
        match = WAIT.fullmatch(preference)
        if match:
            return float(match[1]) if match[1] else float("inf")
    return None


async def finished(request: Request, service: Service, job: Job, seconds: float) -> bool:
    """Wait for a job; False when it took too long. A client that leaves takes its restoration with it.

    Raises:
        asyncio.CancelledError, Problem: the client has left, or somebody else has removed the restoration.
    """
    done = asyncio.ensure_future(asyncio.wrap_future(job.done))
    leaving = asyncio.ensure_future(gone(request))
    try:
        await asyncio.wait({done, leaving}, timeout=min(seconds, 1e6), return_when=asyncio.FIRST_COMPLETED)
        if done.done():
            return True
        if leaving.done():
            await left(service, job)
        return False
    except asyncio.CancelledError:
        await asyncio.shield(run_in_threadpool(service.remove, job.about))
        raise
    finally:
        leaving.cancel()


async def left(service: Service, job: Job) -> NoReturn:
    """Nobody is there who knows of the restoration: remove it, and end in a Problem that nobody reads."""
    await run_in_threadpool(service.remove, job.about)
    raise Problem(408, "the client has left")


async def gone(request: Request) -> None:
    """Ends when the client closes its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
