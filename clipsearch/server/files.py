"""The files of the page, read once when the server starts; a request names one of them, and never a path."""

from __future__ import annotations

import hashlib
from importlib import resources

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FOLDERS = (("clipsearch.server", "page"), ("clipsearch.output", "page_parts"))
"""The page's own files, and those that it shares with pages in one file."""


class Files:
    """The files of the page, by name."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str, str]] = {}
        for package, folder in _FOLDERS:
            for file in resources.files(package).joinpath(folder).iterdir():
                ending = file.name[file.name.rfind(".") :]
                if ending in _TYPES:
                    content = file.read_bytes()
                    etag = f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'
                    self._files[file.name] = content, _TYPES[ending], etag

    def response(self, name: str, request: Request) -> Response:
        """Return the response with a file.

        Raises:
            HTTPException: there is no such file.
        """
        if name not in self._files:
            raise HTTPException(404)
        content, kind, etag = self._files[name]
        headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=kind)
