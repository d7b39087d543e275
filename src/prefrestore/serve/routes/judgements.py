"""Which is better? Pairs, choices, and the scorer that is fitted to them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from fastapi import Path as InPath
from fastapi.responses import FileResponse, Response

from prefrestore.serve.judgement_schemas import Choice, Fit, FitRequest, Judged, Judgements, Pair
from prefrestore.serve.routes.answers import cached, content, picture, problems, temporary
from prefrestore.serve.service import Service

OPEN = Annotated[str, InPath(pattern="^[0-9a-f]{32}$", description="Of an open pair.")]


def router(service: Service) -> APIRouter:
    """The routes below ``/judgements``."""
    routes = APIRouter(tags=["judgements"])
    judging, fitting = service.judging, service.fitting

    @routes.get("/judgements", responses=problems(), summary="How many there are")
    def state() -> Judgements:
        return judging.state(fitting.fit)

    @routes.post("/judgements", status_code=201, responses=problems(400, 404), summary="Say which is better")
    def judge(choice: Choice) -> Judged:
        made = judging.judge(choice)
        service.tell_judgements()
        return Judged(**judging.state(fitting.fit).model_dump(), made=made)

    @routes.delete("/judgements", status_code=204, responses=problems(409), summary="Remove all, and their pictures")
    def clear() -> None:
        service.clear_judgements()

    @routes.get("/judgements/next", responses=problems(), summary="The next pair, blind and in random order")
    def following() -> Pair:
        return judging.next()

    @routes.get(
        "/judgements/pairs/{pair}/{which}",
        response_class=Response,
        responses=content("A PNG", "image/png") | problems(404),
        summary="A picture of an open pair",
    )
    def shown(pair: OPEN, which: Literal["first", "second", "before"]) -> Response:
        return picture(judging.picture(pair, which), None, cached(None))

    @routes.get(
        "/judgements.zip",
        response_class=Response,
        responses=content("For `prefrestore preference fit`", "application/zip") | problems(404),
        summary="Judgements and their pictures",
    )
    def everything() -> Response:
        with temporary(service, ".zip") as (path, after):
            judging.archive(path)
            return FileResponse(path, media_type="application/zip", filename="judgements.zip", background=after)

    @routes.post("/judgements/fit", status_code=202, responses=problems(400, 409, 429, 503), summary="Fit a scorer")
    def fit(asked: FitRequest) -> Fit:
        service.model.check()
        return fitting.start(asked)

    @routes.get("/judgements/fit", responses=problems(404), summary="How the fit is")
    def fitted() -> Fit:
        return fitting.get()

    @routes.delete("/judgements/fit", status_code=204, responses=problems(404), summary="Cancel it")
    def stop() -> None:
        fitting.cancel()

    return routes
