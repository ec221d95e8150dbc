"""A Hugging Face hub on this machine: as much of its protocol as downloads need, and ways to fail."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_LARGE = (".safetensors", ".bin", ".pt")
"""Endings of files that Git LFS keeps; they are answered by another address."""


@dataclass
class Hub:
    """Repositories, and what to do wrong. What was asked of it is remembered."""

    address: str
    revisions: dict[tuple[str, str], Path] = field(default_factory=dict)
    """Folders, by repository and by branch, tag or commit hash."""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path, and the range that was wanted."""
    tokens: list[tuple[str | None, str | None]] = field(default_factory=list)
    """The host that each request is for, and its Authorization."""
    elsewhere: bool = False
    """Whether large files come from another host, as they do in the real hub."""
    status: int = 200
    """Of all answers about files and repositories."""
    code: str = ""
    """The hub's own word for the error."""
    files_only: bool = False
    """Whether `status` is for files only, as with a gated repository, whose description all may read."""
    names_only: bool = False
    """Whether lists have names only, as some mirrors' do."""
    break_after: list[int] = field(default_factory=list)
    """Numbers of bytes after which the connection is closed, once for each number; for large files."""
    wrong: int = 0
    """So many large files arrive with a wrong byte."""
    ignore_ranges: bool = False
    silent: threading.Event | None = None
    """If there is one, files do not come until it is set."""
    stuck: threading.Event | None = None
    """If there is one, large files stop after their first half until it is set."""

    def add(self, repository: str, folder: Path, *names: str) -> str:
        """Have a folder as a commit of a repository, with the branch main and other names; the hash of the commit."""
        content = b"".join(path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file())
        commit = hashlib.sha1(repository.encode() + content, usedforsecurity=False).hexdigest()
        for name in ("main", commit, *names):
            self.revisions[repository, name] = folder
        return commit

    def commit(self, folder: Path) -> str:
        return next(name for (_, name), other in self.revisions.items() if other == folder and len(name) == 40)

    def ranges(self) -> list[str]:
        return [wanted for _, _, wanted in self.asked if wanted]

    def environment(self, home: Path) -> dict[str, str]:
        """What lets a command use this hub, with a cache of its own."""
        return {"HF_ENDPOINT": self.address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}


def names_of(path: Path) -> tuple[str, bool]:
    """The hash that the hub has for a file, and whether it is in Git LFS."""
    content = path.read_bytes()
    if path.name.endswith(_LARGE):
        return hashlib.sha256(content).hexdigest(), True
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest(), False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.asked.append((self.command, path, self.headers.get("Range")))
        self.hub.tokens.append((self.headers.get("Host"), self.headers.get("Authorization")))
        if path.startswith("api/models/"):
            repository, _, revision = path.removeprefix("api/models/").partition("/revision/")
            self._describe(repository, revision or "main")
        elif path.startswith("content/"):
            self._send_file(Path("/", path.removeprefix("content/")))
        else:
            repository, _, rest = path.partition("/resolve/")
            revision, _, name = rest.partition("/")
            self._resolve(repository, revision, name)

    def _describe(self, repository: str, revision: str) -> None:
        if self.hub.status != 200 and not self.hub.files_only:
            return self._fail(self.hub.status, self.hub.code)
        if all(repository != known for known, _ in self.hub.revisions):
            return self._fail(404, "RepoNotFound")
        folder = self.hub.revisions.get((repository, revision))
        if folder is None:
            return self._fail(404, "RevisionNotFound")
        siblings: list[dict[str, Any]] = []
        for path in sorted(folder.iterdir()):
            known, large = names_of(path)
            size = path.stat().st_size
            more = {"size": size, "blobId": known}
            if large:
                more = {"size": size, "blobId": "0" * 40, "lfs": {"sha256": known, "size": size, "pointerSize": 134}}
            siblings.append({"rfilename": path.name} | ({} if self.hub.names_only else more))
        body = {"id": repository, "sha": self.hub.commit(folder), "siblings": siblings, "private": False, "tags": []}
        return self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _resolve(self, repository: str, revision: str, name: str) -> None:
        if self.hub.status != 200:
            return self._fail(self.hub.status, self.hub.code)
        folder = self.hub.revisions.get((repository, revision))
        if folder is None or not (folder / name).is_file():
            return self._fail(404, "EntryNotFound")
        known, large = names_of(folder / name)
        headers = {"X-Repo-Commit": self.hub.commit(folder), "ETag": f'"{known}"'}
        if large and (self.command == "GET" or self.hub.elsewhere):
            headers |= {"X-Linked-Etag": f'"{known}"', "X-Linked-Size": str((folder / name).stat().st_size)}
            host = self.hub.address.replace("127.0.0.1", "localhost") if self.hub.elsewhere else ""
            return self._send(302, b"", headers | {"Location": f"{host}/content{folder / name}"})
        return self._send_file(folder / name, headers)

    def _send_file(self, path: Path, headers: dict[str, str] | None = None) -> None:
        if self.hub.silent and self.command == "GET":
            self.hub.silent.wait(60)
        content = path.read_bytes()
        large = path.name.endswith(_LARGE) and self.command == "GET"
        if large and self.hub.wrong:
            self.hub.wrong -= 1
            content = content[:-1] + bytes([content[-1] ^ 1])
        start, wanted = 0, self.headers.get("Range")
        if wanted and not self.hub.ignore_ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        part = content[start:]
        more = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        most = self.hub.break_after.pop(0) if large and self.hub.break_after else None
        if large and self.hub.stuck:
            most = len(part) // 2
        self._send(206 if start else 200, part, (headers or {}) | more, most)

    def _fail(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code} if code else {})

    def _send(self, status: int, body: bytes, headers: dict[str, str], most: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            with suppress(ConnectionError):  # whoever asked may have ended
                self.wfile.write(body if most is None else body[:most])
            if most and self.hub.stuck:
                self.hub.stuck.wait(60)
        if most is not None:
            self.close_connection = True


@contextmanager
def serving() -> Iterator[Hub]:
    """Within: a hub that answers."""

    class Handler(_Handler):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
        Handler.hub = hub
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            for event in filter(None, (hub.silent, hub.stuck)):
                event.set()
            server.shutdown()
            thread.join()
