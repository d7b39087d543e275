"""How a service is set up; nothing here imports more than the standard library."""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from prefrestore.errors import InvalidInputError

MAX_BYTES = 200_000_000
"""Of one upload."""
DEFAULT_PORT = 8420
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The choices of ``prefrestore serve``.

    Args:
        folder: where photos, results and judgements lie; made with access for this user only.
        host, port: what is listened on.
        names: further names or addresses by which clients may call the service.
        token: what every client must show; None on loopback only.
        preset, face_size, model, preference, device, dtype: as of ``prefrestore restore``.
        queue: most photos that wait or run; one more is told to come back later.
        keep_days: results are removed after so many days.
        most: most restorations that are kept.
        max_bytes: of one upload.
        example: whether an empty folder begins with the example photo.

    Raises:
        InvalidInputError: a number out of range, or an address other than loopback without a token.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    names: tuple[str, ...] = ()
    token: str | None = None
    preset: str = "compact"
    face_size: int | None = None
    model: Path | None = None
    preference: bool | Path = True
    device: str = "auto"
    dtype: str = "float32"
    queue: int = 32
    keep_days: float = 7.0
    most: int = 5000
    max_bytes: int = MAX_BYTES
    example: bool = True

    def __post_init__(self) -> None:
        if self.queue < 1:
            raise InvalidInputError(f"the queue holds 1 photo or more, not {self.queue}")
        if not self.keep_days > 0:
            raise InvalidInputError(f"results are kept for more than 0 days, not {self.keep_days:g}")
        if not is_loopback(self.host) and not self.token:
            raise InvalidInputError(f"{self.host} can be reached from other machines: that needs a token")

    def is_mine(self, name: str) -> bool:
        """Whether a request may be addressed to this host name, the port left out.

        Names that anybody can point at this machine are the way of DNS rebinding. An address cannot be pointed
        elsewhere, so addresses are good where the service listens beyond loopback.
        """
        name = name.lower().rstrip(".")
        if name in LOOPBACK_NAMES or name in (known.lower() for known in (self.host, *self.names)):
            return True
        return not is_loopback(self.host) and (is_address(name) or name == socket.gethostname().lower())


def is_address(name: str) -> bool:
    """Whether it is an IP address, not a name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def default_folder() -> Path:
    """The environment's ``PREFRESTORE_SERVE_FOLDER``, else the system's place for a user's data."""
    import platformdirs

    named = os.environ.get("PREFRESTORE_SERVE_FOLDER")
    return Path(named) if named else platformdirs.user_data_path("prefrestore", appauthor=False) / "serve"
