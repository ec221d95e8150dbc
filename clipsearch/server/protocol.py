"""Connections to the server, each with limits of time, so that slow clients do not keep them from others.

uvicorn itself limits only the time between two requests: a client may take forever to send the headers of one, or to
read its response.
"""

from __future__ import annotations

import asyncio
import logging

from uvicorn.protocols.http.h11_impl import H11Protocol

_log = logging.getLogger(__name__)

HEADER_SECONDS = 15.0
"""Seconds in which a request has to arrive, from when the connection is made or the last response is sent."""
STILL_SECONDS = 30.0
"""Seconds after which a client is given up that reads nothing of a response."""
MOST_CONNECTIONS = 600
"""Number of connections; more are closed at once. Systems usually allow 1024 open files."""
_LOOKS = 4
"""How often, within the shorter of these times, connections are looked at."""


class LimitedProtocol(H11Protocol):
    """A connection that is closed if its client is too slow."""

    header_seconds = HEADER_SECONDS
    still_seconds = STILL_SECONDS
    most_connections = MOST_CONNECTIONS
    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with a connection, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            _log.warning("More than %d connections: another one is refused.", self.most_connections)
            transport.abort()
            return
        self._idle_since = self._written_at = self.loop.time()
        self._unsent = 0
        self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        """End with a connection."""
        if self._look:
            self._look.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def _look_again(self) -> None:
        self._look = self.loop.call_later(min(self.header_seconds, self.still_seconds) / _LOOKS, self._look_at_client)

    def _look_at_client(self) -> None:
        now = self.loop.time()
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._written_at = unsent, now
        # A request is under way from when its headers have arrived until its response is complete; reading what comes
        # after the headers is limited where it is read.
        waiting = self.cycle is None or self.cycle.response_complete
        if (waiting and not unsent and now - self._idle_since > self.header_seconds) or (
            now - self._written_at > self.still_seconds
        ):
            _log.info("a slow client was given up")
            self.transport.abort()
            return
        self._look_again()
