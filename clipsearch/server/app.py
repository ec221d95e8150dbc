"""The application: which address answers what. What takes time runs in threads, as many as there are cores."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import quote

import anyio
from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Send

import clipsearch
from clipsearch.errors import (
    ClipsearchError,
    IndexLockedError,
    IndexMissingError,
    IndexUnfinishedError,
    InputError,
    ModelError,
    StoreError,
    UnreadableImageError,
)
from clipsearch.images.codecs.box import parse_box
from clipsearch.images.files import UnreachableError
from clipsearch.images.reading import VanishedError, digest
from clipsearch.index.selection import folders_of
from clipsearch.output.paths import json_fields
from clipsearch.output.reports import status_fields, status_of
from clipsearch.output.rows import json_bytes
from clipsearch.search.query_terms import ContentTerm, ImageTerm, TextTerm
from clipsearch.server import pictures
from clipsearch.server.answers import Answers, arguments, record
from clipsearch.server.asking import Question, parse, picture_term
from clipsearch.server.files import Files
from clipsearch.server.guard import Guard
from clipsearch.server.indexes import Indexes, Recent, Served
from clipsearch.server.openapi import description
from clipsearch.server.thumbnail_cache import ThumbnailCache
from clipsearch.server.uploads import MOST_BYTES, Uploads
from clipsearch.system import cores

_log = logging.getLogger(__name__)

BODY_SECONDS = 60.0
"""Seconds in which all of a picture or of a list has to arrive."""
_UPLOADS = 4
"""Number of pictures that are received at a time, so that those of many clients do not fill the memory."""
_LONGEST_LIST = 1 << 20
"""Bytes of a list of pictures for a zip file."""
_MOST_ZIPPED = 5000
_FOR_A_YEAR = "private, max-age=31536000, immutable"
_ASK_AGAIN = "private, no-cache"
_NOT_ACCEPTED, _GONE, _UNAVAILABLE, _TOO_LARGE, _TOO_SLOW = 422, 410, 503, 413, 408

Result = TypeVar("Result")


class Site:
    """What the addresses of one server share."""

    def __init__(self, indexes: Indexes, cache: ThumbnailCache, *, watch: bool = False) -> None:
        self._indexes, self._cache, self._watch = indexes, cache, watch
        self._uploads, self._answers, self._files = Uploads(), Answers(), Files()
        self._folders: Recent[tuple[str, int], list[dict[str, object]]] = Recent(8)
        self._searching = anyio.CapacityLimiter(cores.available())
        self._decoding = anyio.CapacityLimiter(cores.available())
        self._sending = anyio.CapacityLimiter(2)
        self._receiving = anyio.CapacityLimiter(_UPLOADS)

    def routes(self) -> list[Route]:
        """Return the addresses."""
        return [
            Route("/", self.page),
            Route("/page/{name}", self.file),
            Route("/api/search", self.search),
            Route("/api/similar", self.similar, methods=["GET", "POST"]),
            Route("/api/image/{row}", self.image),
            Route("/api/thumbnail/{row}", self.thumbnail),
            Route("/api/upload/{id}", self.upload),
            Route("/api/zip", self.zip, methods=["POST"]),
            Route("/api/folders", self.folders),
            Route("/api/status", self.status),
            Route("/api/version", self.version),
            Route("/api/openapi.json", self.openapi),
        ]

    # -- the page --------------------------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        """Answer with the page."""
        return self._files.response("index.html", request)

    async def file(self, request: Request) -> Response:
        """Answer with a style or a script of the page."""
        return self._files.response(request.path_params["name"], request)

    # -- searches --------------------------------------------------------------------------------------------

    async def search(self, request: Request) -> Response:
        """Answer with the pictures that fit a query."""
        served = self._served(request)

        def answer() -> Response:
            return self._answer(served, parse(request.query_params, served, self._uploads))

        return await self._in_thread(self._searching, answer)

    async def similar(self, request: Request) -> Response:
        """Answer with the pictures that are like one, which is named or sent."""
        if request.method != "POST":
            return await self._similar(request, None)
        async with self._receiving:  # the others wait, and what they send does so at their side
            return await self._similar(request, await _body(request, MOST_BYTES))

    async def _similar(self, request: Request, content: bytes | None) -> Response:
        served = self._served(request)

        def answer() -> Response:
            question = parse(request.query_params, served, self._uploads, also=("row", "id", "box"))
            name = self._picture(request, served, content)
            box = request.query_params.get("box")
            term = picture_term(name, served, self._uploads, box=parse_box(box) if box else None)
            return self._answer(served, question.with_picture(name, term))

        return await self._in_thread(self._searching, answer)

    def _picture(self, request: Request, served: Served, content: bytes | None) -> bytes:
        """Return the hash of the picture that a request sends (`content`) or names."""
        if content is not None:
            return self._uploads.add(content)
        if (name := request.query_params.get("id")) is not None:
            return _content(name)
        row = request.query_params.get("row")
        if row is None:
            raise InputError("Which picture? Name it by row or id, or send it.")
        found = pictures.record_of(served, row).hash
        if found is None:
            raise InputError(f"The content of the picture in row {row} is not known.")
        return found

    def _answer(self, served: Served, question: Question) -> Response:
        version = served.version()
        page = self._answers.page(served, question)
        fields: dict[str, object] = {
            "index": served.name,
            "version": version,
            "terms": [self._term(served, term) for term in question.terms],
            "arguments": arguments(served, question),
            "total": page.total,
            "offset": question.offset,
            "hits": [record(hit) for hit in page.hits],
        }
        return _json(fields)

    def _term(self, served: Served, term: TextTerm | ImageTerm | ContentTerm) -> dict[str, object]:
        """Return what a page shows of a term. A picture that was only sent has no row."""
        fields: dict[str, object] = {"weight": term.weight}
        if isinstance(term, TextTerm):
            return fields | {"text": term.text}
        if isinstance(term, ImageTerm):
            fields["box"] = str(term.box) if term.box else None
        content = term.content if isinstance(term, ContentTerm) else _content_of(served, term)
        if content is None:
            return fields
        fields["id"] = content.hex()
        if known := served.index.store.rows_with(content):
            found = served.index.store.image(known[0][1])
            return fields | json_fields(found.path) | {"row": found.row, "width": found.width, "height": found.height}
        upload = self._uploads.get(content)
        return fields | ({"width": upload.width, "height": upload.height} if upload else {})

    # -- pictures --------------------------------------------------------------------------------------------

    async def thumbnail(self, request: Request) -> Response:
        """Answer with a picture, upright and reduced."""
        served, (row, wanted) = self._served(request), _row(request)
        side = request.query_params.get("side", str(pictures.SIDES[0]))
        if side not in map(str, pictures.SIDES):
            raise InputError(f"side: one of {', '.join(map(str, pictures.SIDES))}.")
        found = await self._in_thread(self._decoding, functools.partial(pictures.record_of, served, row, wanted))
        etag = f'"{found.hash.hex()}-{side}"' if found.hash else None
        headers = _caching(etag, fixed=wanted is not None)
        if etag and etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        make = functools.partial(pictures.thumbnail, found, int(side), self._cache)
        return Response(await self._in_thread(self._decoding, make), headers=headers, media_type="image/webp")

    async def image(self, request: Request) -> Response:
        """Answer with the file of a picture."""
        served, (row, wanted) = self._served(request), _row(request)
        found = await self._in_thread(self._sending, functools.partial(pictures.record_of, served, row, wanted))
        etag = f'"{found.hash.hex()}"' if found.hash else None
        headers = _caching(etag, fixed=wanted is not None)
        if etag and etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        file = await self._in_thread(self._sending, functools.partial(pictures.original, found))
        kind = "inline" if file.media_type else "attachment"
        headers["Content-Disposition"] = f"{kind}; filename*=UTF-8''{quote(file.name, safe='')}"
        headers["Content-Security-Policy"] = "sandbox; default-src 'none'; img-src 'self'; style-src 'unsafe-inline'"
        media_type = file.media_type or "application/octet-stream"
        if isinstance(file.content, bytes):
            return Response(file.content, headers=headers, media_type=media_type)
        return _Parts(file.content, headers=headers | {"Content-Length": str(file.size)}, media_type=media_type)

    async def upload(self, request: Request) -> Response:
        """Answer with a picture that was sent, upright and reduced."""
        upload = self._uploads.get(_content(request.path_params["id"]))
        if upload is None:
            raise pictures.NoSuchPictureError
        return Response(upload.thumbnail, headers={"Cache-Control": _FOR_A_YEAR}, media_type="image/webp")

    async def zip(self, request: Request) -> Response:
        """Answer with the files of several pictures in a zip file."""
        served = self._served(request)
        rows = (await _body(request, _LONGEST_LIST)).decode("ascii", "replace").split()
        if not 0 < len(rows) <= _MOST_ZIPPED:
            raise InputError(f"Send the rows of 1 to {_MOST_ZIPPED} pictures, separated by spaces.")
        found = await self._in_thread(self._sending, lambda: [pictures.record_of(served, row) for row in rows])
        headers = {"Content-Disposition": 'attachment; filename="pictures.zip"'}
        return StreamingResponse(pictures.zipped(found), headers=headers, media_type="application/zip")

    # -- about the indexes -----------------------------------------------------------------------------------

    async def folders(self, request: Request) -> Response:
        """Answer with the folders that pictures lie in."""
        served = self._served(request)

        def found() -> list[dict[str, object]]:
            key = served.name, served.version()
            known = self._folders.get(key)
            if known is None:
                counted = folders_of(served.index.store)
                known = [json_fields(path) | {"images": number} for path, number in counted]
                self._folders.put(key, known)
            return known

        return _json({"folders": await self._in_thread(self._searching, found)})

    async def status(self, request: Request) -> Response:
        """Answer with what the indexes hold."""

        def found() -> list[dict[str, object]]:
            return [
                {
                    "name": one.name,
                    "version": one.version(),
                    **status_fields(status_of(one.index.store), bytes),
                }
                for one in self._indexes
            ]

        del request
        indexes = await self._in_thread(self._searching, found)
        return _json({"clipsearch": clipsearch.__version__, "watch": self._watch, "indexes": indexes})

    async def version(self, request: Request) -> Response:
        """Answer with a number for each index that changes with it."""
        del request
        return _json({one.name: one.version() for one in self._indexes})

    async def openapi(self, request: Request) -> Response:
        """Answer with the description of all this for programs."""
        del request
        return _json(description())

    # -- how -------------------------------------------------------------------------------------------------

    def _served(self, request: Request) -> Served:
        return self._indexes.named(request.query_params.get("index") or None)

    @staticmethod
    async def _in_thread(limiter: anyio.CapacityLimiter, work: Callable[[], Result]) -> Result:
        return await to_thread.run_sync(work, limiter=limiter)


class _Parts(StreamingResponse):
    """A response with the parts of a file; the connection is closed within it if the file changes meanwhile."""

    async def stream_response(self, send: Send) -> None:
        """Send headers and parts."""
        try:
            await super().stream_response(send)
        except UnreadableImageError as error:
            _log.warning("A picture could not be sent to its end: %s", error)


def make_app(site: Site, *, token: str, names: tuple[str, ...] = (), any_address: bool = False) -> ASGIApp:
    """Make the application of a site; `token`, `names` and `any_address` are as for `Guard`."""
    handlers: dict[Any, Callable[[Request, Any], Awaitable[Response]]] = {
        ClipsearchError: _on_error,
        HTTPException: _on_refusal,
        pictures.NoSuchPictureError: _on_missing,
        ClientDisconnect: _on_missing,
    }
    app = Starlette(routes=site.routes(), exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Guard(app, token=token, names=names, any_address=any_address)


async def _on_error(_: Request, error: ClipsearchError) -> Response:
    kinds: list[tuple[type[ClipsearchError], int]] = [
        (VanishedError, _GONE),
        (StoreError, _UNAVAILABLE),
        (UnreachableError, _UNAVAILABLE),
        (UnreadableImageError, _NOT_ACCEPTED),
        (InputError, 400),
        (IndexLockedError, _UNAVAILABLE),
        (IndexUnfinishedError, _UNAVAILABLE),
        (IndexMissingError, _UNAVAILABLE),
        (ModelError, _UNAVAILABLE),
    ]
    status = next((status for kind, status in kinds if isinstance(error, kind)), 500)
    return _json({"error": str(error)}, status)


async def _on_refusal(_: Request, error: HTTPException) -> Response:
    return _json({"error": error.detail}, error.status_code, dict(error.headers or {}))


async def _on_missing(_: Request, __: Exception) -> Response:
    return _json({"error": "There is no such picture, or the index has changed since: search again."}, 404)


async def _body(request: Request, most: int) -> bytes:
    """Read the body of a request.

    Raises:
        HTTPException: it has more than `most` bytes, or takes too long.
    """
    too_large = HTTPException(_TOO_LARGE, f"More than {most >> 20} MB.", {"Connection": "close"})
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > len(str(most)) + 1 or int(length) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise too_large
    except TimeoutError as error:
        raise HTTPException(_TOO_SLOW, "The body came too slowly.", {"Connection": "close"}) from error
    return bytes(body)


def _content_of(served: Served, term: ImageTerm) -> bytes | None:
    """Return the hash of the content of a picture that was sent, or that is in the index."""
    if isinstance(term.image, bytes):
        return digest(term.image)
    row = served.index.store.row_of(os.fsencode(term.image))
    return None if row is None else served.index.store.image(row).hash


def _content(text: str) -> bytes:
    """Read the id of a picture."""
    try:
        found = bytes.fromhex(text) if len(text) == 32 else b""  # noqa: PLR2004  (a hash of 16 bytes)
    except ValueError:
        found = b""
    if not found:
        raise InputError("An id has 32 digits and letters from a to f.")
    return found


def _row(request: Request) -> tuple[str, bytes | None]:
    """Return the row that a request names, and the hash of the content that it has to have, if it says so."""
    name = request.query_params.get("id")
    return request.path_params["row"], _content(name) if name is not None else None


def _caching(etag: str | None, *, fixed: bool) -> dict[str, str]:
    """Return headers for a picture: with `fixed`, the address names its content, so that it never changes."""
    headers = {"Cache-Control": _FOR_A_YEAR if fixed else _ASK_AGAIN}
    return headers | ({"ETag": etag} if etag else {})


def _json(fields: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json_bytes(fields), status, headers, "application/json")
