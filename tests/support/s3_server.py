"""A server of Amazon's S3 protocol (moto's) in a process of its own, and what can go wrong on the way to it."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

_MOTO = """
import logging, sys
logging.disable(logging.CRITICAL)
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
_SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=a/20200101/us-east-1/s3/aws4_request, Signature=b"}
"""What moto wants to see, and does not check."""
_KEPT = ("etag", "last-modified", "content-type")
SECRET = "aSecretThatNobodySees"  # noqa: S105  (it is one of the tests)


@dataclass
class Store:
    """A store behind a proxy on this machine that fails when a test says so."""

    address: str
    """That of the proxy."""
    upstream: int
    """The port of the real server."""
    bucket: str = ""
    """The one of the test."""
    faults: dict[str, list[str]] = field(default_factory=dict)
    """What happens to the next requests whose method and path (`GET /bucket/key`) contain a text, in order.

    A status, with a code of the protocol or without; `cut`, the answer ends in its middle; `reset`, there is no answer;
    `silent`, there is none until `free` is set; `twice`, a page of a list has no way to go on; `anew`, the whole list
    comes instead of a page.
    """
    then: dict[str, Callable[[], None]] = field(default_factory=dict)
    """What is done before the next request with a text is answered."""
    page: int = 1000
    """Most keys of a page of a list."""
    asked: list[str] = field(default_factory=list)
    """Method and path of all requests."""
    free: threading.Event = field(default_factory=threading.Event)

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Ask the real server: status, headers, and content of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=30)
        connection.request(method, path, body or None, _SIGNED | (headers or {}))
        with connection.getresponse() as answer:
            content = answer.read()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content

    def begin(self, bucket: str) -> None:
        """Begin a test with an empty bucket, and without faults."""
        self.bucket, self.page, self.faults, self.then, self.asked = bucket, 1000, {}, {}, []
        self.ask("PUT", f"/{bucket}")

    def put(self, key: str, content: bytes) -> None:
        """Have an object in the bucket."""
        status, _, said = self.ask("PUT", f"/{self.bucket}/{quote(key)}", content)
        assert status == 200, said

    def delete(self, key: str) -> None:
        """Remove an object from the bucket."""
        self.ask("DELETE", f"/{self.bucket}/{quote(key)}")

    def environment(self, **more: str) -> dict[str, str]:
        """What lets a command use this store, without much patience."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "AKIATEST",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "CLIPSEARCH_STORE_TRIES": "3",
            **more,
        }


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store

    def do_GET(self) -> None:
        store, wanted = self.store, f"{self.command} {self.path}"
        store.asked.append(wanted)
        for text in [text for text in store.then if text in wanted]:
            store.then.pop(text)()
        fault = next((faults.pop(0) for text, faults in store.faults.items() if text in wanted and faults), "")
        path = self.path.replace("max-keys=1000", f"max-keys={1000 if fault == 'anew' else store.page}")
        if fault == "anew":
            path = re.sub("&?continuation-token=[^&]*", "", path)
        if fault == "silent":
            store.free.wait(30)
        if fault in ("silent", "reset"):
            self.close_connection = True
            return
        headers: dict[str, str] = {}
        if fault[:3].isdecimal():
            code = fault[4:] or "InternalError"
            status, content = int(fault[:3]), f"<Error><Code>{code}</Code></Error>".encode()
        else:
            passed = {"range": part} if (part := self.headers.get("range")) else {}
            status, headers, content = store.ask(self.command, path, headers=passed)
        if fault == "twice":
            start, end = content.index(b"<NextContinuationToken>"), content.index(b"</NextContinuationToken>")
            content = content[:start] + content[end + len(b"</NextContinuationToken>") :]
        self.send_response(status)
        for name, value in headers.items():
            if name in _KEPT:
                self.send_header(name, value)
        size = int(headers.get("content-length", 0)) if self.command == "HEAD" else len(content)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)
        if fault == "cut":
            self.close_connection = True

    do_HEAD = do_GET  # noqa: N815  (the name that http.server wants)

    def log_message(self, *_: Any) -> None:  # noqa: ANN401
        """Say nothing."""


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:  # noqa: ANN401
        """Say nothing of clients that went away."""


@contextmanager
def moto() -> Iterator[int]:
    """Run a real server in a process of its own, and return its port."""
    with subprocess.Popen([sys.executable, "-c", _MOTO], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdin
        try:
            yield int(process.stdout.readline())
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.kill()


@contextmanager
def proxied(port: int) -> Iterator[Store]:
    """Put a proxy before a server."""

    class Handler(_Proxy):
        pass

    server = _Quiet(("127.0.0.1", 0), Handler)
    store = Handler.store = Store(f"http://127.0.0.1:{server.server_port}", port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield store
    finally:
        store.free.set()
        server.shutdown()
        server.server_close()
        thread.join()
