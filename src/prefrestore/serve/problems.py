"""Errors as problem documents (RFC 9457): one clear sentence, the same as on the command line."""

from __future__ import annotations

import http
import json
import logging
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prefrestore.errors import PrefRestoreError

MEDIA_TYPE = "application/problem+json"
logger = logging.getLogger("prefrestore.serve")


class Problem(Exception):
    """A request that cannot be answered: its HTTP status, and one sentence."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})

    def response(self) -> Response:
        """The problem document."""
        document = {
            "type": "about:blank",
            "title": http.HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        # Text that UTF-8 cannot hold (half a surrogate pair in somebody's JSON) is told escaped.
        return Response(json.dumps(document), self.status, media_type=MEDIA_TYPE, headers=self.headers)


def sentence_of(errors: Sequence[Any]) -> str:
    """Pydantic's first error as one sentence: where, and what is wrong there."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    message = str(first["msg"])
    return f"{where}: {message[:1].lower()}{message[1:]}" if where else message


def log_defect(error: BaseException) -> None:
    """Where a defect is, for whoever runs the service; not its message, which may speak of somebody's photo."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("unexpected %s\n%s", type(error).__name__, frames)


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` with a problem document."""

    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> Response:
        return error.response()

    @app.exception_handler(PrefRestoreError)
    async def bad_input(_: Request, error: PrefRestoreError) -> Response:
        return Problem(422, str(error)).response()

    @app.exception_handler(RequestValidationError)
    async def bad_request(_: Request, error: RequestValidationError) -> Response:
        return Problem(422, sentence_of(error.errors())).response()

    @app.exception_handler(ValidationError)
    async def bad_options(_: Request, error: ValidationError) -> Response:
        return Problem(422, sentence_of(error.errors())).response()

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        details = {404: f"there is nothing at {request.url.path}", 405: f"{request.method} is not for this address"}
        return Problem(
            error.status_code, details.get(error.status_code, str(error.detail)), error.headers or {}
        ).response()


class Catch:
    """ASGI middleware: a defect is a 500 without a word about the request, in the answer and in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except ClientDisconnect:
            return
        # Whatever it is: the service goes on.
        except Exception as error:  # noqa: BLE001
            log_defect(error)
            if not started:
                problem = Problem(500, "the service met an error of its own; its log says where")
                await problem.response()(scope, receive, send)
