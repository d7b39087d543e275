"""The server itself: uvicorn, and what is printed when it starts."""

from __future__ import annotations

import logging
import socket
import threading
import webbrowser
from collections.abc import Callable
from types import FrameType

import uvicorn

from prefrestore.errors import PrefRestoreError
from prefrestore.serve.app import create_app
from prefrestore.serve.problems import logger
from prefrestore.serve.settings import Settings, is_address

MOST_CONNECTIONS = 256
GOODBYE = 3
"""Seconds that open connections have when the server ends."""


class Server(uvicorn.Server):
    """Ends the event streams when it is told to end: it would wait for them else."""

    def __init__(self, config: uvicorn.Config, ending: Callable[[], None]) -> None:
        super().__init__(config)
        self._ending = ending

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On a signal."""
        self._ending()
        super().handle_exit(sig, frame)


def run(settings: Settings, *, open_page: bool, say: Callable[[str], None]) -> None:
    """Serve until a signal ends it.

    Args:
        settings: how.
        open_page: show the page in a browser.
        say: prints what the user should know: the address, with the token if there is one.

    Raises:
        PrefRestoreError: the address is taken, or not of this machine.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    listening = bound(settings.host, settings.port)
    app = create_app(settings)
    port = listening.getsockname()[1]
    shown = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    shown = f"[{shown}]" if is_address(shown) and ":" in shown else shown
    address = f"http://{shown}:{port}/" + (f"?token={settings.token}" if settings.token else "")
    say(f"prefrestore is at {address}")
    say(f"results are kept for {settings.keep_days:g} days in {settings.folder}; end with Ctrl-C")
    config = uvicorn.Config(
        app,
        # Requests are not logged: their addresses could hold the token, and names of photos are nobody's business.
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=GOODBYE,
        ws="none",
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # It tells bytes of bad requests.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    server = Server(config, app.state.service.close)
    if open_page:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    server.run(sockets=[listening])
    logger.info("ended")


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens on the address; PrefRestoreError when it cannot."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        # From here on a client that is early waits, and is not refused.
        listening.listen(MOST_CONNECTIONS)
    except OSError as error:
        raise PrefRestoreError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listening
