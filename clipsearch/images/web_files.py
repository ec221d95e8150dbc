"""Files on web servers, and lists of their addresses, through fsspec's and aiohttp's HTTP.

A list is a text file with an address in each line, or a path relative to the list. Its files are known by paths below
its own: `https://host/list.txt!/cat.jpg`, and `https://host/list.txt!/https://other/cat.jpg` for those elsewhere.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

from clipsearch.errors import StoreError, UnreadableImageError
from clipsearch.images.codecs.limits import check_bytes
from clipsearch.images.files import ImageFile, UnreachableError
from clipsearch.images.requesting import AT_ONCE, PassingError, Server, abandon, not_installed, timeout, wait_for
from clipsearch.images.stamping import modified_ns, number_of
from clipsearch.system.addresses import LIST_MARK, url_of
from clipsearch.system.parallel import map_in_order

_T = TypeVar("_T")
_INSIDE = LIST_MARK + b"/"
_LONGEST_LINE = 16_384
"""Bytes; a file with longer lines is no list."""
_CHUNK = 1 << 16
_PASSING = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)
"""Status codes that come and go."""
_GONE = (404, 410)
_REFUSED = (401, 402, 403, 407, 451)
_NO_HEAD = (400, 403, 405, 501)
"""What servers say that answer requests for a file, but not for its description alone."""


class WebFiles:
    """A file on a web server, or the files on a list, as a source (see `sources.Source`). Threads may share it."""

    def __init__(self, address: bytes) -> None:
        """Make the source of an address, or of a path in a list."""
        self._address = address
        self._list, mark, self._inner = address.partition(LIST_MARK)
        self._is_list = bool(mark)

    def files(self) -> Iterator[ImageFile]:
        """Yield all files on the list, as for `sources.Source`."""
        yield from self.images(lambda file: file)

    def images(self, wanted: Callable[[ImageFile], ImageFile | None]) -> Iterator[ImageFile]:
        """Yield what `wanted` returns of each file on the list, in the order of their paths, each described.

        Raises:
            StoreError: the list cannot be read to its end, or is none.
        """
        if not self._is_list or self._inner.strip(b"/"):
            if (file := self.file(self._address)) is None:
                raise StoreError(f"There is nothing at {os.fsdecode(self._address)}.")
            yield file
            return
        with closing(sqlite3.connect("", check_same_thread=False)) as database:
            # Its order is not ours, and it may be long, so it is sorted in a temporary file.
            database.execute("CREATE TABLE entries (path BLOB PRIMARY KEY, problem TEXT) WITHOUT ROWID")
            self._read_list(database)
            rows = database.execute("SELECT path, problem FROM entries ORDER BY path")
            entries = filter(None, (wanted(ImageFile(path, 0, 0, problem)) for path, problem in rows))
            with closing(map_in_order(self._described, entries, AT_ONCE, 4 * AT_ONCE, abandon=abandon)) as files:
                yield from filter(None, files)

    def file(self, path: bytes) -> ImageFile | None:
        """Describe a file, as for `sources.Source`."""
        return self._described(ImageFile(path, 0, 0))

    def first_bytes(self, path: bytes, count: int) -> bytes:
        """Read the first bytes of a file, as for `sources.Source`, with the errors of `read`."""

        async def read(response: Any) -> bytes:  # noqa: ANN401
            data = b""
            async for part in response.content.iter_chunked(_CHUNK):
                data += part
                if len(data) >= count:
                    break
            return data[:count]

        return _ask(_url(path), read, ranged=f"bytes=0-{count - 1}")

    def read(self, path: bytes, most: int) -> tuple[ImageFile, bytes]:
        """Read a file, as for `sources.Source`.

        One that is too large is refused before it is downloaded if its server says its size, else as soon as it shows.

        Raises:
            UnreachableError: it cannot be had now.
        """

        async def read(response: Any) -> tuple[ImageFile, bytes]:  # noqa: ANN401
            check_bytes(response.content_length or 0, most)
            data = bytearray()
            async for part in response.content.iter_chunked(_CHUNK):
                data += part
                check_bytes(len(data), most)
            return _stamped(ImageFile(path, len(data), 0), response), bytes(data)

        return _ask(_url(path), read)

    # -- how ---------------------------------------------------------------------------------------------------

    def _described(self, file: ImageFile) -> ImageFile | None:
        """Describe a file; None if it does not exist. If that cannot be found out now, reading it will show."""
        if file.problem is not None:
            return file

        async def describe(response: Any) -> ImageFile:  # noqa: ANN401
            return _stamped(file._replace(size=response.content_length or 0), response)

        try:
            return _ask(_url(file.path), describe, method="HEAD")
        except FileNotFoundError:
            return None
        except UnreachableError:
            return file._replace(mtime_ns=time.time_ns())
        except UnreadableImageError as error:
            return file._replace(problem=str(error))

    def _read_list(self, database: sqlite3.Connection) -> None:
        """Read the list into a table.

        Raises:
            StoreError: it cannot be read to its end, or is no list.
        """
        shown = os.fsdecode(self._list)

        async def read(response: Any) -> None:  # noqa: ANN401
            kind = response.headers.get("Content-Type", "")
            if kind.startswith(("text/html", "image/")):
                raise StoreError(f"{shown} is no list of addresses, but {kind.partition(';')[0]}.", hint="list")
            chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
            if response.content_length is None and not chunked:
                raise StoreError(f"{shown} comes without its size, so that it cannot be told whether it is complete.")
            database.execute("DELETE FROM entries")
            rest = b""
            async for part in response.content.iter_chunked(_CHUNK):
                *lines, rest = (rest + part).split(b"\n")
                self._note(database, lines)
                if len(rest) > _LONGEST_LINE or b"\0" in rest:
                    raise StoreError(f"{shown} is no list of addresses: it has too long a line.", hint="list")
            self._note(database, [rest])

        try:
            _ask(shown, read)
        except FileNotFoundError as error:
            raise StoreError(f"There is no list at {shown}.") from error
        except UnreadableImageError as error:
            raise StoreError(f"The list {shown} cannot be read: {error}.") from error

    def _note(self, database: sqlite3.Connection, lines: list[bytes]) -> None:
        stripped = (line.strip() for line in lines)
        entries = [self._entry(line) for line in stripped if line and not line.startswith(b"#")]
        database.executemany("INSERT OR IGNORE INTO entries VALUES (?, ?)", entries)

    def _entry(self, line: bytes) -> tuple[bytes, str | None]:
        """Return path and problem of a line of the list. What may be a password is left out of both."""
        base, inside = os.fsdecode(self._list), self._list + _INSIDE
        text = os.fsdecode(line.removeprefix(b"\xef\xbb\xbf"))
        bare = text.partition("?")[0].partition("#")[0]
        try:
            url = urlsplit(urljoin(base, bare))
            place = url.netloc.rpartition("@")[2]
        except ValueError:
            return inside + os.fsencode(bare.replace("@", "%40")), "its address cannot be understood"
        bare = f"{url.scheme}://{place}{url.path}"
        folder = base[: base.rindex("/") + 1]
        path = inside + os.fsencode(bare.removeprefix(folder) if bare != folder else bare)
        if url.scheme not in ("http", "https") or not place:
            return path, f"addresses on a list begin with http:// or https://, not with {url.scheme}:"
        if "@" in url.netloc:
            return path, "its address contains credentials, which the index would keep"
        if bare and ("?" in text or "#" in text):
            return path, "its address goes on with ? or #, where keys may be, which the index would keep"
        if {".", ".."} & set(url.path.split("/")):
            return path, "a part of its address is . or .."
        return path, None


class _Connection:
    """What all web servers are asked through."""

    def __init__(self) -> None:
        try:
            import aiohttp
            import fsspec
        except ImportError as error:
            raise not_installed() from error
        self.seconds = timeout()
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self.seconds, sock_read=self.seconds)
        self._files = fsspec.filesystem(
            "http",
            skip_instance_cache=True,
            use_listings_cache=False,
            client_kwargs={"timeout": limits, "trust_env": True, "auto_decompress": False},
        )
        self._servers: dict[str, Server] = {}

    def server(self, url: str) -> Server:
        """Return what is known of the server of an address."""
        parts = urlsplit(url)
        return self._servers.setdefault(parts.netloc, Server(f"{parts.scheme}://{parts.netloc}"))

    async def call(self, url: str, method: str, headers: dict[str, str], use: Callable[[Any], Awaitable[_T]]) -> _T:
        """Make one request, and return what `use` makes of the response, with the errors of `Source`."""
        import aiohttp

        try:
            session = await self._files.set_session()
            async with session.request(method, url, headers=headers, allow_redirects=True) as response:
                if response.status in (200, 206):
                    return await use(response)
                raise _said(response.status, method)
        except aiohttp.InvalidURL as error:
            raise UnreadableImageError("its address cannot be understood") from error
        except (aiohttp.ServerTimeoutError, TimeoutError):
            raise PassingError(f"no answer within {self.seconds:g} s") from None
        except aiohttp.ClientConnectorError:
            raise PassingError("no connection") from None
        except aiohttp.ClientPayloadError:
            raise PassingError("the answer ended early") from None
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise PassingError(f"the connection broke ({type(error).__name__})") from None


_connections: list[_Connection] = []
_connecting = threading.Lock()


def _ask(url: str, use: Callable[[Any], Awaitable[_T]], *, method: str = "GET", ranged: str | None = None) -> _T:
    """Make a request, as often as it takes, and return what `use` makes of the response."""
    with _connecting:
        if not _connections:
            _connections.append(_Connection())
    connection = _connections[0]
    headers = {"Accept-Encoding": "identity", "User-Agent": "clipsearch"} | ({"Range": ranged} if ranged else {})
    return wait_for(connection.server(url).ask(lambda: connection.call(url, method, headers, use)))


def _url(path: bytes) -> str:
    """Return the address under which a file is asked for."""
    try:
        return url_of(path).decode()
    except UnicodeDecodeError as error:
        raise UnreadableImageError("its address is not UTF-8") from error


def _said(status: int, method: str) -> Exception:
    """Return the error that a status code means."""
    if status in _GONE:
        return FileNotFoundError(status)
    if status in _PASSING:
        return PassingError(f"the server says {status}")
    if status in _REFUSED or (method == "HEAD" and status in _NO_HEAD):
        return UnreachableError(f"the server refuses it: {status}")
    return UnreadableImageError(f"the server says {status}")


def _stamped(file: ImageFile, response: Any) -> ImageFile:  # noqa: ANN401
    """Add the times of a response to a file. Without any, it counts as changed at every look."""
    etag, when = response.headers.get("ETag"), response.headers.get("Last-Modified")
    known = modified_ns(when) if when or etag else time.time_ns()
    return file._replace(mtime_ns=known, inode=number_of(etag))
