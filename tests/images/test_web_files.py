"""Pictures on web servers, and lists of their addresses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from conftest import SAMPLES

from clipsearch.errors import InputError, StoreError, UnreadableImageError
from clipsearch.images import requesting, web_files
from clipsearch.images.files import ImageFile, Rules, UnreachableError
from clipsearch.images.finding import find_images
from clipsearch.images.reading import VanishedError, read_file
from clipsearch.images.web_files import WebFiles
from clipsearch.output.gallery import _address
from clipsearch.system.paths import absolute

CAT = (SAMPLES / "dogs" / "dog_3.jpg").read_bytes()


class Server:
    """Files by path, and what goes wrong with them."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.faults: dict[str, list[int]] = {}
        """Statuses of the next answers, by path; 0 is an answer that ends in the middle."""
        self.no_size: set[str] = set()
        self.no_head: set[str] = set()
        self.asked: list[str] = []


@contextmanager
def serving() -> Iterator[Server]:
    site = Server("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(f"{self.command} {self.path}")
            fault = next(iter(site.faults.get(self.path, [])), None)
            if fault is not None:
                site.faults[self.path].pop(0)
            content = site.files.get(self.path)
            status = fault or (
                404 if content is None else 405 if self.command == "HEAD" and self.path in site.no_head else 200
            )
            self.send_response(status)
            for name, value in site.headers.get(self.path, {}).items():
                self.send_header(name, value)
            if self.path not in site.no_size:
                self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if self.command == "GET" and content:
                self.wfile.write(content[: len(content) // 2] if fault == 0 else content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:  # noqa: ANN401
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(requesting, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(web_files, "_connections", [])
    monkeypatch.setenv("CLIPSEARCH_STORE_TRIES", "3")
    with serving() as web:
        yield web


def listed(web: Server, text: str, *, rules: Rules | None = None) -> list[ImageFile]:
    web.files["/sets/list.txt"] = text.encode()
    return list(find_images(absolute(f"{web.address}/sets/list.txt") + b"!", rules or Rules()))


def test_a_list_gives_each_picture_once_in_order_with_what_shows_changes(web: Server) -> None:
    web.files |= {"/sets/b.jpg": CAT, "/sets/a/1": CAT + b"1", "/other/c.png": CAT + b"22"}
    web.headers["/sets/b.jpg"] = {"ETag": '"one"', "Last-Modified": "Sun, 09 Sep 2001 01:46:40 GMT"}
    text = "# a comment\n\nb.jpg\r\na/1\n/other/c.png\n./b.jpg\ngone.jpg\na/x.zip\na/notes.txt\n"
    text += f"{web.address}/sets/b.jpg\n"
    found = listed(web, text)
    inside = f"{web.address}/sets/list.txt!/".encode()
    paths = [inside + b"a/1", inside + b"b.jpg", inside + f"{web.address}/other/c.png".encode()]
    assert [file.path for file in found] == paths
    assert [file.size for file in found] == [len(CAT) + 1, len(CAT), len(CAT) + 2]
    assert found[1].mtime_ns == 10**18
    assert found[1].inode not in (None, found[0].inode)
    for file, content in zip(found, (CAT + b"1", CAT, CAT + b"22"), strict=True):
        assert read_file(file.path).data == content
    assert _address(paths[1]) == f"{web.address}/sets/b.jpg"
    assert [file.path for file in listed(web, text, rules=Rules(exclude=("a/",)))] == paths[1:]
    assert listed(web, text)[1] == found[1] == WebFiles(paths[1]).file(paths[1])


def test_one_picture_has_its_own_address(web: Server) -> None:
    web.files["/cat.jpg"] = CAT
    (found,) = find_images(absolute(f"{web.address}/cat.jpg"), Rules())
    assert found.path == f"{web.address}/cat.jpg".encode()
    assert WebFiles(found.path).first_bytes(found.path, 3) == CAT[:3]
    with pytest.raises(UnreadableImageError, match="too large"):
        WebFiles(found.path).read(found.path, 10)
    web.no_size.add("/cat.jpg")  # a server that does not say how large a file is
    assert read_file(found.path).data == CAT
    with pytest.raises(UnreadableImageError, match="too large"):
        WebFiles(found.path).read(found.path, 10)
    del web.files["/cat.jpg"]
    with pytest.raises(VanishedError):
        read_file(found.path)


def test_faults_are_survived_or_named(web: Server) -> None:
    web.files["/sets/b.jpg"] = CAT
    web.no_head.add("/sets/b.jpg")
    web.faults = {"/sets/list.txt": [503, 0], "/sets/b.jpg": [500, 500, 429]}
    (file,) = listed(web, "b.jpg\n")  # what cannot be described is read
    web.faults["/sets/b.jpg"] = [0, 502]
    assert read_file(file.path).data == CAT
    web.faults["/sets/b.jpg"] = [500, 500, 500, 403]
    for why in ("500, 3 times", "refuses it: 403"):
        with pytest.raises(UnreachableError, match=why):
            read_file(file.path)


@pytest.mark.parametrize(
    ("faults", "headers", "why"),
    [
        ([0, 0, 0], {}, "ended early|broke"),
        ([503, 503, 503], {}, "503"),
        ([404], {}, "There is no list"),
        ([403], {}, "403"),
        ([], {"Content-Type": "text/html; charset=utf-8"}, "no list of addresses, but text/html"),
    ],
)
def test_a_list_that_is_not_whole_is_an_error(
    web: Server, faults: list[int], headers: dict[str, str], why: str
) -> None:
    web.faults["/sets/list.txt"], web.headers["/sets/list.txt"] = faults, headers
    with pytest.raises(StoreError, match=why):
        listed(web, "a.jpg\nb.jpg\n" * 10)


def test_a_list_whose_end_is_not_known_is_an_error(web: Server) -> None:
    web.no_size.add("/sets/list.txt")
    with pytest.raises(StoreError, match="without its size"):
        listed(web, "a.jpg\n")


def test_lines_that_may_hold_keys_are_named_without_them(web: Server) -> None:
    lines = ["https://user:secret@host/a.jpg", "b.jpg?token=secret", "c.jpg#secret", "ftp://host/d.jpg"]
    lines.append("../../e/%20.jpg")
    web.files["/e/%20.jpg"] = CAT
    problems = {file.path.rpartition(b"/")[2]: file.problem or "" for file in listed(web, "\n".join(lines))}
    assert "credentials" in problems[b"a.jpg"]
    assert "?" in problems[b"b.jpg"]
    assert "#" in problems[b"c.jpg"]
    assert "not with ftp:" in problems[b"d.jpg"]
    assert b"%20.jpg" in problems
    assert "secret" not in str(listed(web, "\n".join(lines)))


@pytest.mark.parametrize(
    "given", ["s3://KEY:SECRET@bucket/a", "https://me:SECRET@host/list.txt", "http://h/a?SECRET", "s3://"]
)
def test_addresses_with_secrets_are_refused_without_repeating_them(given: str) -> None:
    with pytest.raises(InputError) as error:
        absolute(given)
    assert "SECRET" not in str(error.value)


def test_addresses_are_kept_as_they_are() -> None:
    assert absolute("S3://bucket/a//b/./c?d#e/") == b"s3://bucket/a//b/./c?d#e"
    assert absolute("./s3://bucket").startswith(b"/")
    assert absolute("https://host:8000/a.jpg") == b"https://host:8000/a.jpg"
