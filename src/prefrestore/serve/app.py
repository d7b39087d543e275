"""The ASGI application: the page, the API, and what guards them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from prefrestore import __version__
from prefrestore.serve import problems
from prefrestore.serve.problems import Problem, log_defect
from prefrestore.serve.routes import about, faces, judgements, restorations
from prefrestore.serve.security import Guard
from prefrestore.serve.service import Service
from prefrestore.serve.settings import Settings

PAGE = Path(__file__).parent / "page"
HEAD_START = 0.25
"""Seconds that the page has before the model's imports, which keep the interpreter for seconds, begin."""
SWEEP = 60.0
"""Seconds between two looks for what is too old."""


def create_app(settings: Settings) -> FastAPI:
    """The application; the model begins to load when the server starts it."""
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.get_running_loop().call_later(HEAD_START, service.start)
        sweeping = asyncio.create_task(sweep(service))
        yield
        starting.cancel()
        sweeping.cancel()
        service.close()

    app = FastAPI(
        title="prefrestore",
        version=__version__,
        description="Restore the faces in photos. Errors are RFC 9457 problem documents.",
        lifespan=lifespan,
        # FastAPI's own documentation pages load scripts from elsewhere; `/docs` here is ours.
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        separate_input_output_schemas=False,
    )
    app.state.service = service
    problems.install(app)
    api = APIRouter(prefix="/api/v1")
    for subject in (restorations, faces, judgements, about):
        api.include_router(subject.router(service))
    app.include_router(api)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return file("index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return file("docs.html")

    app.mount("/static", Static(directory=PAGE))
    app.add_middleware(problems.Catch)
    app.add_middleware(Guard, settings=settings)
    return app


def file(name: str) -> FileResponse:
    """A file of the page, which is looked at anew each time."""
    path = PAGE / name
    if not path.is_file():
        raise Problem(404, f"this copy of the package has no {name}")
    return FileResponse(path, headers={"Cache-Control": "no-cache"})


class Static(StaticFiles):
    """The page's files."""

    async def get_response(self, path: str, scope: Scope) -> Any:
        """As StaticFiles', revalidated each time: a new version of the package is seen at once."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


async def sweep(service: Service) -> None:
    """Remove what is too old, again and again."""
    while True:
        try:
            await asyncio.to_thread(service.sweep)
        except Exception as error:  # noqa: BLE001 (the next look may go well)
            log_defect(error)
        await asyncio.sleep(SWEEP)
