"""The service itself: health, information, the token, all events."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response, StreamingResponse

from prefrestore import __version__
from prefrestore.serve.events import Event
from prefrestore.serve.problems import Problem
from prefrestore.serve.routes.answers import content, problems
from prefrestore.serve.schemas import MOST_SAMPLES, MOST_STEPS, Health, Info, Limits, Token
from prefrestore.serve.security import cookie, is_right
from prefrestore.serve.service import Service


def router(service: Service) -> APIRouter:
    """The routes that are about no photo."""
    routes = APIRouter(tags=["service"])
    settings, model = service.settings, service.model

    @routes.get(
        "/health", responses=problems() | {503: {"model": Health}}, response_model=Health, summary="Can it work?"
    )
    def health() -> Response:
        failed = model.state.status == "failed"
        state = Health(status="failed" if failed else "ok", model=model.state.status)
        return JSONResponse(state.model_dump(), 503 if failed else 200)

    @routes.get("/info", responses=problems(), summary="What runs here")
    def info() -> Info:
        from prefrestore.pictures.formats import READABLE_SUFFIXES
        from prefrestore.pictures.read import MAX_PIXELS

        ready = model.state.status == "ready"
        return Info(
            version=__version__,
            preset=settings.preset,
            device=model.device,
            weights=dict(model.pipeline.weight_hashes) if ready else None,
            face_size=int(model.pipeline.face_size) if ready else None,
            model=model.state,
            limits=Limits(
                bytes=settings.max_bytes,
                pixels=MAX_PIXELS,
                queue=settings.queue,
                keep_days=settings.keep_days,
                scales=[1, 2, 4],
                steps=MOST_STEPS,
                samples=MOST_SAMPLES,
            ),
            accepts=sorted(READABLE_SUFFIXES),
        )

    @routes.post("/session", status_code=204, responses=problems(400), summary="Let this browser in")
    def session(asked: Token) -> Response:
        if settings.token is not None and not is_right(asked.token, settings.token):
            raise Problem(401, "that is not the token that the service printed when it started")
        headers = {"Set-Cookie": cookie(settings.token)} if settings.token else {}
        return Response(status_code=204, headers=headers)

    @routes.get(
        "/events",
        response_class=StreamingResponse,
        responses=content("Without an end", "text/event-stream") | problems(),
        summary="Everything that changes, as server-sent events",
    )
    async def events() -> StreamingResponse:
        def first() -> Iterable[Event]:
            return itertools.chain(
                [service.model_event()], (service.event(one) for one in reversed(service.store.all()))
            )

        stream = service.broadcast.stream(first, is_last=lambda event: False)
        return StreamingResponse(stream, media_type="text/event-stream")

    return routes
