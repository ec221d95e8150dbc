"""A server in a thread of this process, and a client that sends exactly what a test says."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from clipsearch.server.indexes import Indexes
from clipsearch.server.running import Server
from clipsearch.server.thumbnail_cache import ThumbnailCache

TOKEN = "a-token-for-the-tests"  # noqa: S105  (no secret)


class Reply(NamedTuple):
    """The response to a request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401  (JSON)
        """The body as JSON."""
        return json.loads(self.body)


class Client:
    """Asks a server; by default with its token."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        bearer: str | None = TOKEN,
    ) -> Reply:
        """Send one request in a connection of its own; `path` goes as it is, whatever is in it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            sent = {"Host": f"127.0.0.1:{self.port}"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
            if body is not None:
                sent["Content-Length"] = str(len(body))
            for name, value in {**sent, **(headers or {})}.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def raw(self) -> socket.socket:
        """A connection on which nothing was sent yet."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


@contextmanager
def serving(folders: Sequence[Path], cache: Path, **options: Any) -> Iterator[tuple[Server, Client]]:  # noqa: ANN401
    """A server of the indexes in these folders."""
    with Indexes(folders) as indexes:
        server = Server(indexes, cache=ThumbnailCache(cache, 10_000_000), token=TOKEN, **options)
        running = threading.Thread(target=server.run)
        running.start()
        try:
            yield server, Client(server.port)
        finally:
            server.stop()
            running.join(30)
            assert not running.is_alive()
