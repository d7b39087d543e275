"""Who may ask: host names, origins, the token; and what every answer tells the browser to refuse."""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prefrestore.serve.problems import Problem
from prefrestore.serve.settings import Settings

COOKIE = "prefrestore_token"
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "font-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
OPEN = frozenset({"/api/v1/health", "/api/v1/session"})
"""What is answered without a token."""
SHELL = ("/static/",)
"""The page's own files, which are in every copy of the package and show nobody's photo."""


class Guard:
    """ASGI middleware: refuses what does not come from where it should, before any of it is read."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no websockets here
            await send({"type": "websocket.close", "code": 1008})
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if "cache-control" not in headers:
                    headers["Cache-Control"] = "no-store"
            await send(message)

        headers = Headers(scope=scope)
        given = token_in_query(scope)
        try:
            check_host(headers, self.settings)
            check_origin(headers, scope["method"], scope["path"])
            if given is not None and is_right(given, self.settings.token):
                await entrance(scope, given)(scope, receive, with_headers)
                return
            check_token(headers, scope["path"], self.settings.token)
        except Problem as problem:
            await problem.response()(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)


def check_host(headers: Headers, settings: Settings) -> None:
    """Problem 421 when the request is addressed to a name that is not this service's."""
    values = headers.getlist("host")
    name = host_name(values[0]) if len(values) == 1 else None
    if name is None or not settings.is_mine(name):
        raise Problem(421, "this service does not answer to that host name; name it with --name")


def host_name(authority: str) -> str | None:
    """``name:port``, ``[::1]:port`` -> the name; None when it is no such thing."""
    if not authority or any(character in authority for character in "/@?#\\ "):
        return None
    try:
        return urlsplit(f"//{authority}").hostname
    except ValueError:
        return None


def check_origin(headers: Headers, method: str, path: str) -> None:
    """Problem 403 when a browser says that the request comes from another site's page."""
    origin = headers.get("origin")
    if origin is not None:
        try:
            theirs = urlsplit(origin)
        except ValueError:
            theirs = urlsplit("")
        if theirs.scheme not in ("http", "https") or theirs.netloc.lower() != headers["host"].lower():
            raise Problem(403, "requests from pages of other sites are refused")
    site = headers.get("sec-fetch-site", "none")
    # A link on another page may lead to the page itself; nothing else of the service is for other pages.
    visit = method == "GET" and path in ("/", "/docs") and headers.get("sec-fetch-mode") == "navigate"
    if site not in ("none", "same-origin") and not visit:
        raise Problem(403, "requests from pages of other sites are refused")


def check_token(headers: Headers, path: str, token: str | None) -> None:
    """Problem 401 when a token is needed and the right one is not shown."""
    if token is None or path in OPEN or path == "/" or path.startswith(SHELL):
        return
    shown = bearer(headers) or from_cookie(headers)
    if shown is None or not is_right(shown, token):
        raise Problem(
            401,
            "this needs the token that the service printed when it started",
            {"WWW-Authenticate": 'Bearer realm="prefrestore"'},
        )


def is_right(shown: str, token: str | None) -> bool:
    """Compared in a time that does not depend on how much of it is right."""
    return token is not None and hmac.compare_digest(shown.encode("utf-8", "replace"), token.encode())


def bearer(headers: Headers) -> str | None:
    """The token of ``Authorization: Bearer TOKEN``."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" and value.strip() else None


def from_cookie(headers: Headers) -> str | None:
    """The token that `cookie` gave the browser."""
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel is not None else None


def token_in_query(scope: Scope) -> str | None:
    """The token of ``/?token=TOKEN``, the address that is printed."""
    if scope["path"] != "/" or scope["method"] != "GET":
        return None
    return dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token")


def cookie(token: str) -> str:
    """The ``Set-Cookie`` value that lets a browser in: no script can read it, no other site's page can use it."""
    return f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age=2592000"


def entrance(scope: Scope, token: str) -> RedirectResponse:
    """To the page without the token in its address, with the cookie."""
    rest = [(name, value) for name, value in parse_qsl(scope["query_string"].decode("latin-1")) if name != "token"]
    response = RedirectResponse("/" + (f"?{urlencode(rest)}" if rest else ""), 303)
    response.headers["Set-Cookie"] = cookie(token)
    return response
