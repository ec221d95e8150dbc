"""Starting and ending a server: the socket, the token, and the first address."""

from __future__ import annotations

import errno
import ipaddress
import logging
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from clipsearch.errors import InputError
from clipsearch.server.app import Site, make_app
from clipsearch.server.indexes import Indexes
from clipsearch.server.protocol import LimitedProtocol
from clipsearch.server.thumbnail_cache import ThumbnailCache

_WAITING = 256
"""Number of connections that wait to be accepted."""
_TOKEN_BYTES = 24
_LEAST_TOKEN = 16
"""Characters of the shortest token that is accepted."""
_GRACE = 2
"""Seconds that requests under way have to end when the server does."""


class Server:
    """A server whose socket is open, so that its address is known before it runs."""

    def __init__(
        self,
        indexes: Indexes,
        *,
        cache: ThumbnailCache,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        watch: bool = False,
    ) -> None:
        """Open the socket.

        Args:
            indexes: What is offered.
            cache: Where thumbnails are kept.
            host: The name or address of the interface to listen on.
            port: 0 for any that is free.
            token: The secret of those who may ask; by default a random one is made.
            watch: Whether the page asks again and again if the index has changed.

        Raises:
            InputError: the address is not there, or in use; or the token is too short.
        """
        if token is not None and (len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable()):
            raise InputError(f"A token needs at least {_LEAST_TOKEN} characters, and only letters, digits and signs.")
        self._socket = _listening(host, port)
        self.host, self.port = host, int(self._socket.getsockname()[1])
        self.token = token or secrets.token_urlsafe(_TOKEN_BYTES)
        self.is_local = _is_loopback(str(self._socket.getsockname()[0]))
        names = () if self.is_local else (host, socket.gethostname(), f"{socket.gethostname()}.local")
        app = make_app(Site(indexes, cache, watch=watch), token=self.token, names=names, any_address=not self.is_local)
        config = uvicorn.Config(
            app,
            http=LimitedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # what clients do wrong is no news
        self._server = uvicorn.Server(config)

    @property
    def address(self) -> str:
        """The address for a browser, without the token."""
        host = "127.0.0.1" if self.host == "0.0.0.0" else "[::1]" if self.host == "::" else self.host  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{self.port}/"

    def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Answer requests until `stop` is called or a signal comes, which is raised again at the end."""
        started()
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Let `run` end soon. Any thread may call this."""
        self._server.should_exit = True

    def close(self) -> None:
        """Close the socket, if `run` was never called."""
        self._socket.close()


def thumbnails(folder: Path, megabytes: int) -> ThumbnailCache:
    """Return the cache of thumbnails below a folder."""
    return ThumbnailCache(folder / "thumbnails", megabytes * 1_000_000)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # With the protocol, or else asyncio does not know that it is TCP and leaves Nagle's algorithm on: the body of
        # an answer then waits until the client has acknowledged the headers, which takes 40 ms.
        opened = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"There is no address {host!r} on this machine: {error.strerror}.") from error
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(_WAITING)
    except OSError as error:
        opened.close()
        hint = "port" if port and error.errno in (errno.EADDRINUSE, errno.EACCES) else ()
        raise InputError(f"{host} cannot be listened on at port {port}: {error.strerror}.", hint=hint) from error
    return opened


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
