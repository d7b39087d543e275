"""What changes is told to whoever listens: server-sent events."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import NamedTuple

HEARTBEAT = 15.0
"""Seconds; a line that says nothing keeps proxies from ending a quiet stream, and shows who has left."""
MOST_WAITING = 256
"""Events that a slow listener may be behind; then the oldest are left out. Each tells the whole state."""


class Event(NamedTuple):
    """One event: its name, the restoration that it is about (or None), and its JSON."""

    name: str
    about: str | None
    data: str

    def encode(self) -> bytes:
        """As the stream holds it; JSON has no line breaks of its own."""
        return f"event: {self.name}\ndata: {self.data}\n\n".encode()


class Listener:
    """One stream's events, put in from any thread and taken out in its own loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.waiting: deque[Event | None] = deque(maxlen=MOST_WAITING)
        self.arrived = asyncio.Event()

    def put(self, event: Event | None) -> None:
        """From any thread; None ends the stream."""
        try:
            self.loop.call_soon_threadsafe(self._put, event)
        except RuntimeError:  # its loop has ended, and the stream with it
            return

    def _put(self, event: Event | None) -> None:
        self.waiting.append(event)
        self.arrived.set()

    async def take(self) -> Event | None:
        """The next event; TimeoutError when none came for a heartbeat's time."""
        while not self.waiting:
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), HEARTBEAT)
        return self.waiting.popleft()


class Broadcast:
    """Everybody who listens, and what they are told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: set[Listener] = set()
        self._closed = False

    def publish(self, event: Event) -> None:
        """Tell everybody; from any thread."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener.put(event)

    def close(self) -> None:
        """End all streams, also those that begin later."""
        with self._lock:
            self._closed = True
            listeners = list(self._listeners)
        for listener in listeners:
            listener.put(None)

    async def stream(
        self, first: Callable[[], Iterable[Event]], *, about: str | None = None, is_last: Callable[[Event], bool]
    ) -> AsyncIterator[bytes]:
        """The state as it is, then every change.

        Args:
            first: the events that tell the state; asked after listening has begun, so that no change is lost.
            about: only events about this restoration.
            is_last: whether the stream ends after an event.
        """
        listener = Listener()
        with self._lock:
            self._listeners.add(listener)
            if self._closed:
                listener.put(None)
        try:
            for event in first():
                yield event.encode()
                if is_last(event):
                    return
            while True:
                try:
                    coming = await listener.take()
                except asyncio.TimeoutError:
                    yield b": still here\n\n"
                    continue
                if coming is None:
                    return
                if about is None or coming.about == about:
                    yield coming.encode()
                    if is_last(coming):
                        return
        finally:
            with self._lock:
                self._listeners.discard(listener)
