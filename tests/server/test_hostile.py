"""That nobody gets in who should not, nothing is read that is not in the index, and slow clients keep nobody out."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import paint
from PIL import Image
from serving import TOKEN, Client, serving

from clipsearch.cli.serve import _announce, _check_installed
from clipsearch.errors import InputError
from clipsearch.index.format import FOLDER
from clipsearch.server import app, uploads
from clipsearch.server.indexes import Indexes
from clipsearch.server.protocol import LimitedProtocol
from clipsearch.server.running import Server
from clipsearch.server.thumbnail_cache import ThumbnailCache

ADDRESSES = (
    "/",
    "/page/shared.css",
    "/api/search?q=dog",
    "/api/image/0",
    "/api/thumbnail/0",
    "/api/status",
    "/nothing",
)

EVERYWHERE = "0.0.0.0"  # noqa: S104  (which is what is tested)


@pytest.fixture(scope="module")
def client(sample_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with serving([sample_index / FOLDER], tmp_path_factory.mktemp("thumbnails")) as (_, client):
        yield client


def cookie(client: Client) -> str:
    reply = client.ask(f"/?token={TOKEN}", bearer=None)
    return str(reply.headers["Set-Cookie"]).partition(";")[0]


# --- who may ask ---


@pytest.mark.parametrize("path", ADDRESSES)
@pytest.mark.parametrize("bearer", [None, "wrong", f"{TOKEN}x", TOKEN[:-1], ""])
def test_nothing_is_answered_without_the_token(client: Client, path: str, bearer: str | None) -> None:
    headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
    reply = client.ask(path, bearer=None, headers=headers)
    assert reply.status == 401
    assert b"dog" not in reply.body


def test_the_first_address_gives_a_cookie_and_hides_the_token(client: Client) -> None:
    reply = client.ask(f"/?token={TOKEN}&q=a+dog", bearer=None)
    assert (reply.status, reply.headers["Location"]) == (303, "/?q=a+dog")
    given = str(reply.headers["Set-Cookie"])
    assert "HttpOnly" in given
    assert "SameSite=strict" in given
    assert TOKEN not in given
    assert client.ask("/api/status", bearer=None, headers={"Cookie": cookie(client)}).status == 200
    assert client.ask("/?token=wrong", bearer=None).status == 401
    assert client.ask(f"/api/status?token={TOKEN}", bearer=None).status == 401  # only the first address takes it
    assert client.ask(f"/?token={TOKEN}&token={TOKEN}", bearer=None).status == 401
    assert client.ask("/api/status", bearer=None, headers={"Cookie": f"clipsearch-{client.port}={TOKEN}"}).status == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.", "10.0.0.1", "", "[::1", "a b"]
)
def test_another_host_is_refused_since_its_name_may_lead_here_by_a_trick(client: Client, host: str) -> None:
    assert client.ask("/api/status", headers={"Host": host}).status in (400, 421)
    assert client.ask(f"/?token={TOKEN}", bearer=None, headers={"Host": host}).status in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "127.0.0.1:1", "[::1]:80"])
def test_the_names_of_this_machine_are_ours_also_behind_a_forwarded_port(client: Client, host: str) -> None:
    assert client.ask("/api/status", headers={"Host": host}).status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "file://"])
def test_what_another_site_sends_is_refused(client: Client, origin: str, tmp_path: Path) -> None:
    body = paint(tmp_path / "a.png", "red").read_bytes()
    headers = {"Cookie": cookie(client), "Origin": origin}
    for bearer in (None, TOKEN):
        assert client.ask("/api/similar", method="POST", body=body, headers=headers, bearer=bearer).status == 403
    own = {"Cookie": cookie(client), "Origin": f"http://127.0.0.1:{client.port}"}
    assert client.ask("/api/similar?k=1", method="POST", body=body, headers=own, bearer=None).status == 200
    without = {"Cookie": cookie(client)}
    assert client.ask("/api/similar?k=1", method="POST", body=body, headers=without, bearer=None).status == 403


def test_another_site_cannot_show_pictures_either(client: Client) -> None:
    headers = {"Cookie": cookie(client), "Sec-Fetch-Site": "cross-site"}
    assert client.ask("/api/thumbnail/0", headers=headers, bearer=None).status == 403
    reply = client.ask("/api/thumbnail/0")
    assert reply.headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize("path", ADDRESSES)
def test_every_response_has_the_headers_for_safety(client: Client, path: str) -> None:
    for bearer in (TOKEN, None):
        headers = client.ask(path, bearer=bearer).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "script-src 'unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cache-Control"]
        assert headers["Server"] is None


# --- what can be read ---

_WAYS = (
    "..",
    "../../../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "..%5c..%5cetc%5cpasswd",
    "%252e%252e%252fetc%252fpasswd",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "file:///etc/passwd",
    "sample-images/dogs/dog_0.webp",
    "-1",
    "0.0",
    "1e3",
    "%00",
    "0%00.webp",
    "9" * 30,
    "253",
    "%D9%A1",  # a digit, but not of ours
    "index.html/../../pyproject.toml",
)


@pytest.mark.parametrize("way", _WAYS)
def test_only_rows_of_the_index_are_read(client: Client, way: str) -> None:
    for start in ("/api/image/", "/api/thumbnail/", "/page/", "/", "/api/upload/", "//"):
        reply = client.ask(start + way)
        assert reply.status in (400, 404), (start, reply)
        assert b"root:" not in reply.body
        assert b"Traceback" not in reply.body
    for name in ("under", "like", "index", "glob", "after"):
        reply = client.ask(f"/api/search?q=dog&{name}={quote(way, safe='%')}")
        assert reply.status in (200, 400), (name, reply)
        assert b"root:" not in reply.body


def test_whether_a_folder_outside_of_the_index_exists_is_not_said(client: Client) -> None:
    for name in ("/etc/ssl", "/etc/no-such"):
        reply = client.ask(f"/api/search?q=dog&under={name}")
        assert reply.json == {"error": f"under: '{name}' is not in the index."}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_there_is_no_other_method_and_nothing_is_written(client: Client, method: str, sample_index: Path) -> None:
    before = sorted(os.listdir(sample_index / FOLDER))
    for path in ("/api/image/0", "/api/search?q=dog", "/", "/api/similar", "/api/zip"):
        assert client.ask(path, method=method, body=b"").status in (400, 405)
    assert sorted(os.listdir(sample_index / FOLDER)) == before


# --- what is sent ---


@pytest.mark.parametrize(
    "body",
    [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 100, b"%!PS\n(/etc/passwd) run", b"<svg/>", os.urandom(5000)],
)
def test_what_is_no_picture_is_refused(client: Client, body: bytes) -> None:
    reply = client.ask("/api/similar", method="POST", body=body)
    assert reply.status == 422
    assert "Traceback" not in reply.json["error"]


def test_a_picture_of_too_many_pixels_is_refused_before_it_takes_memory(client: Client) -> None:
    bomb = io.BytesIO()
    Image.new("1", (9000, 9000)).save(bomb, "PNG")
    reply = client.ask("/api/similar", method="POST", body=bomb.getvalue())
    assert reply.status == 422
    assert f"limit of {uploads.MOST_PIXELS // 10**6} million" in reply.json["error"]


@pytest.mark.parametrize("length", [str(uploads.MOST_BYTES + 1), "9" * 40, "-1", "1 1", "0x10"])
def test_a_body_that_is_too_long_is_not_even_read(client: Client, length: str) -> None:
    reply = client.ask("/api/similar", method="POST", headers={"Content-Length": length})
    assert reply.status in (400, 413)


def test_a_body_without_a_length_is_cut_off(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MOST_BYTES", 100_000)
    with client.raw() as connection:
        head = f"POST /api/similar HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        part = b"%x\r\n" % 50_000 + b"\0" * 50_000 + b"\r\n"
        got = b""
        try:
            for _ in range(20):
                connection.sendall(part)
        except OSError:
            pass  # it was closed meanwhile, as it should be
        try:
            got = connection.recv(1000)
        except ConnectionResetError:
            return
        assert got == b"" or b" 413 " in got


def test_requests_that_are_none(client: Client) -> None:
    for sent in (b"\0\0\0\0\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n"):
        with client.raw() as connection:
            connection.sendall(sent)
            assert connection.recv(100).startswith(b"HTTP/1.1 4")
    with client.raw() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert connection.recv(100).startswith((b"HTTP/1.1 400", b"HTTP/1.1 421"))
    with client.raw() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 70_000)
        assert connection.recv(100).startswith(b"HTTP/1.1 4")
    assert client.ask("/api/version").status == 200


# --- slow clients ---


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch, sample_index: Path, tmp_path: Path) -> Iterator[Client]:
    """A server that waits for nobody."""
    monkeypatch.setattr(LimitedProtocol, "header_seconds", 0.4)
    monkeypatch.setattr(LimitedProtocol, "still_seconds", 0.4)
    monkeypatch.setattr(app, "BODY_SECONDS", 0.4)
    with serving([sample_index / FOLDER], tmp_path / "cache") as (_, client):
        yield client


def closed(connection: socket.socket) -> bytes:
    """What still comes until the other side closes the connection."""
    got = b""
    try:
        while part := connection.recv(1 << 16):
            got += part
    except ConnectionResetError:
        pass
    return got


def test_clients_that_never_finish_their_headers_are_given_up_and_keep_nobody_out(hasty: Client) -> None:
    slow = [hasty.raw() for _ in range(150)]
    for number, connection in enumerate(slow):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: "[: number % 40])
    assert hasty.ask("/api/version").status == 200
    for connection in slow:
        with connection:
            assert closed(connection) == b""


def test_a_client_that_never_finishes_its_body_is_answered_and_given_up(hasty: Client) -> None:
    with hasty.raw() as connection:
        head = f"POST /api/similar HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        connection.sendall(f"{head}Content-Length: 100000\r\n\r\nGIF8".encode())
        assert b" 408 " in closed(connection)


def test_a_client_that_reads_nothing_is_given_up(hasty: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = threading.Event()
    lost = LimitedProtocol.connection_lost

    def noted(self: LimitedProtocol, error: Exception | None) -> None:
        lost(self, error)
        gone.set()

    monkeypatch.setattr(LimitedProtocol, "connection_lost", noted)
    with hasty.raw() as connection:
        ask = f"GET /api/search?q=dog&k=253 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        connection.sendall(200 * ask.encode())  # for more than the systems on both sides keep
        assert gone.wait(60)


def test_only_so_many_connections(hasty: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LimitedProtocol, "most_connections", 3)
    monkeypatch.setattr(LimitedProtocol, "header_seconds", 60)
    held = [hasty.raw() for _ in range(3)]
    for connection in held:
        connection.sendall(b"GET")
    with hasty.raw() as fourth:
        assert closed(fourth) == b""
    for connection in held:
        connection.close()


# --- where it listens ---


def test_it_listens_on_this_machine_only_unless_told_otherwise(sample_index: Path, tmp_path: Path) -> None:
    with Indexes([sample_index / FOLDER]) as indexes:
        cache = ThumbnailCache(tmp_path, 10**6)
        local = Server(indexes, cache=cache)
        assert local.is_local
        assert local._socket.getsockname()[0] == "127.0.0.1"
        assert len(local.token) >= 32
        wide = Server(indexes, cache=cache, host=EVERYWHERE)
        assert not wide.is_local
        assert wide.token != local.token
        with pytest.raises(InputError, match="cannot be listened on at port"):
            Server(indexes, cache=cache, port=local.port)
        with pytest.raises(InputError, match="no address"):
            Server(indexes, cache=cache, host="no.such.name.invalid")
        with pytest.raises(InputError, match="at least 16"):
            Server(indexes, cache=cache, token=TOKEN[:5])
        local.close()
        wide.close()


def test_with_another_address_hosts_may_be_addresses_but_no_strange_names(sample_index: Path, tmp_path: Path) -> None:
    with serving([sample_index / FOLDER], tmp_path, host=EVERYWHERE) as (_, client):
        for host, status in (
            ("192.168.1.7:80", 200),
            ("[fe80::1]", 200),
            (socket.gethostname(), 200),
            ("evil.example", 421),
        ):
            assert client.ask("/api/version", headers={"Host": host}).status == status


def test_thumbnails_on_the_disk_stay_below_their_limit_and_are_nobody_elses(tmp_path: Path) -> None:
    cache = ThumbnailCache(tmp_path / "thumbnails", 100_000)
    names = [bytes([number]) * 16 for number in range(30)]
    for number, name in enumerate(names):
        cache.put(name, 320, b"x" * 10_000)
        for old in names[: number + 1]:
            if cache.get(old, 320) and old == names[0]:
                os.utime(cache._path(old, 320))
    kept = [name for name in names if cache.get(name, 320)]
    assert 5 <= len(kept) <= 10
    assert sum(file.stat().st_size for file in (tmp_path / "thumbnails").rglob("*.webp")) <= 100_000
    assert (tmp_path / "thumbnails").stat().st_mode & 0o077 == 0
    ThumbnailCache(tmp_path / "none", 0).put(names[0], 320, b"x")
    assert not (tmp_path / "none").exists()


# --- what is said ---


def test_the_address_is_printed_and_opened_and_who_can_reach_it_is_said(
    sample_index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def launch(address: str) -> int:
        opened.append(address)
        return 0

    monkeypatch.setattr("typer.launch", launch)
    with Indexes([sample_index / FOLDER]) as indexes:
        for host in ("127.0.0.1", EVERYWHERE):
            server = Server(indexes, cache=ThumbnailCache(tmp_path, 0), host=host, token=TOKEN)
            _announce(server, indexes, show=True)
            server.close()
            out, said = capsys.readouterr()
            assert out == f"http://127.0.0.1:{server.port}/?token={TOKEN}\n"
            assert opened.pop() == out.strip()
            assert "Serving 253 images" in said
            assert ("not encrypted" in said) == (host == EVERYWHERE)


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "uvicorn" else name)
    with pytest.raises(InputError, match=r"^uvicorn is not installed.*clipsearch\[serve\]"):
        _check_installed()
