"""One face of a restoration: its pictures, other guesses, its uncertainty."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, Response

from prefrestore.serve.problems import Problem
from prefrestore.serve.routes.answers import ID, Kind, Number, Side, Version, cached, content, picture, problems
from prefrestore.serve.schemas import Face, GuessRequest, Restoration
from prefrestore.serve.service import Service, check_face

PNG = content("A PNG", "image/png")


def router(service: Service) -> APIRouter:
    """The routes below ``/restorations/{id}/faces/{k}``."""
    routes = APIRouter(prefix="/restorations/{id}", tags=["faces"])
    store = service.store

    def found(id: str, k: int) -> tuple[Restoration, Face]:
        one = store.get(id)
        check_face(one, k)
        return one, one.faces[k]

    @routes.get(
        "/faces/{k}/before", response_class=Response, responses=PNG | problems(404, 409), summary="The crop before"
    )
    def before(id: ID, k: Number) -> Response:
        found(id, k)
        return FileResponse(store.folder(id) / f"faces/{k}/before.png", media_type="image/png", headers=cached(0))

    @routes.get(
        "/faces/{k}/after", response_class=Response, responses=PNG | problems(404, 409), summary="The crop after"
    )
    def after(
        id: ID,
        k: Number,
        guess: Annotated[int | None, Query(ge=0, description="The one in use, if none is named.")] = None,
        strength: Annotated[float, Query(ge=0, le=1)] = 1.0,
        v: Version = None,
    ) -> Response:
        from prefrestore.serve.composing import crop
        from prefrestore.serve.facefiles import profile

        one, face = found(id, k)
        number = face.guess if guess is None else guess
        if number is None:
            raise Problem(404, f"face {k} of {one.name} was not restored")
        if number >= len(face.guesses):
            raise Problem(404, f"face {k} of {one.name} has {len(face.guesses)} guesses, counted from 0")
        folder = store.folder(id)
        return picture(crop(folder, face, number, strength), profile(folder, k), cached(v))

    @routes.get(
        "/faces/{k}/region",
        response_class=Response,
        responses=content("A PNG or JPEG", "image/*") | problems(404, 409),
        summary="Its part of the picture, at the strengths as they are",
    )
    def part(
        id: ID,
        k: Number,
        side: Side = None,
        before: bool = False,
        kind: Annotated[Kind, Query(alias="format", description="png: exact; jpeg: quick.")] = "png",
        v: Version = None,
    ) -> Response:
        from prefrestore.serve.composing import KEPT_SIDE, region
        from prefrestore.serve.facefiles import profile

        one, face = found(id, k)
        if face.region is None or 0 in face.region[2:]:
            raise Problem(404, f"face {k} of {one.name} was not restored")
        folder = store.folder(id)
        shown = region(folder, one, k, side=side or KEPT_SIDE, before=before)
        return picture(shown, profile(folder, k), cached(v), kind)

    @routes.get(
        "/faces/{k}/uncertainty",
        response_class=Response,
        responses=PNG | problems(404, 409),
        summary="The map over the face",
    )
    def uncertainty(id: ID, k: Number) -> Response:
        one, face = found(id, k)
        if face.uncertainty is None:
            raise Problem(404, f"the uncertainty of face {k} of {one.name} is not mapped: ask for it with POST")
        return FileResponse(
            store.folder(id) / f"faces/{k}/uncertainty.png", media_type="image/png", headers=cached(None)
        )

    @routes.post("/faces/{k}/uncertainty", status_code=202, responses=problems(404, 409, 429, 503), summary="Map it")
    def make_map(id: ID, k: Number) -> Restoration:
        return service.map(id, k)

    @routes.post(
        "/faces/{k}/guesses", status_code=202, responses=problems(400, 404, 409, 429, 503), summary="Guess again"
    )
    def guess(id: ID, k: Number, asked: GuessRequest) -> Restoration:
        return service.guesses(id, k, asked)

    @routes.delete("/work", status_code=204, responses=problems(404), summary="Cancel what is made for a face")
    def stop(id: ID) -> None:
        service.stop_work(id)

    return routes
