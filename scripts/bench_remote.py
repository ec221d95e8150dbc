"""Benchmark of listing and reading objects of a store on this machine, beside the same files on disk.

The pictures are random but smooth JPEGs of 256 x 256. They lie in a server of the S3 protocol (moto's, in a process of
its own) behind a proxy of the tests that fails in a given share of all requests with 503; server, proxy and clipsearch
share the machine, so this is what the code costs, not what a network allows. Files and objects take turns. Then a
million keys are listed: their pages are made as they are asked for, by a small server that stands in for moto, which
would need minutes to hold them; the memory of this process is looked at on the way. Run it with:

    python scripts/bench_remote.py
"""

from __future__ import annotations

import argparse
import io
import os
import random
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import bench_common as common
import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from s3_server import Store, moto, proxied

from clipsearch.images import object_store
from clipsearch.images.files import ImageFile, Rules
from clipsearch.images.finding import find_images
from clipsearch.index.pipeline import read_images

PAGE = 1000
KINDS = ("disk", "store", "store, 5 % faults")


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="pictures")
    parser.add_argument("--keys", type=int, default=1_000_000, help="keys that are only listed")
    common.add_options(parser, runs=3)
    given = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="clipsearch-bench-") as name, moto() as port, proxied(port) as store:
        work = Path(name)
        common.isolate(work)
        os.environ.update(store.environment(CLIPSEARCH_STORE_TRIES="6"))
        make(work / "photos", store, given.count)
        places = {"disk": os.fsencode(work / "photos"), "store": b"s3://bench/photos"}
        places["store, 5 % faults"] = places["store"]
        for what, measure in (("list", listed), ("read", read)):
            times: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for _ in range(given.runs + 1):  # the first one warms up
                for kind in KINDS:
                    store.faults = Faults(0.05 if "5 %" in kind else 0)
                    began = time.monotonic()
                    found = measure(places[kind])
                    times[kind].append(time.monotonic() - began)
                    assert found == given.count
            result[what] = {
                kind: round(given.count / sorted(some[1:])[len(some) // 2 - 1]) for kind, some in times.items()
            }
            print(f"{what}: " + ", ".join(f"{kind} {rate:,}/s" for kind, rate in result[what].items()))
    with pages(given.keys) as address:
        object_store._connections.clear()  # noqa: SLF001  (as in another process)
        os.environ["AWS_ENDPOINT_URL"] = address
        result["keys"] = many(given.keys)
    common.finish(benchmark="remote", count=given.count, runs=given.runs, **result)


class Faults(dict[str, list[str]]):
    """A share of all requests fails with 503."""

    def __init__(self, share: float) -> None:
        super().__init__({"/bench": []})
        self._share, self._drawn = share, random.Random(0)

    def items(self) -> Any:  # noqa: ANN401
        """Draw whether the next request fails."""
        return [("/bench", ["503"])] if self._drawn.random() < self._share else []


def make(folder: Path, store: Store, count: int) -> None:
    """Write the pictures to the disk and to the store."""
    folder.mkdir()
    store.begin("bench")
    drawn = np.random.default_rng(0)
    for number in range(count):
        image = Image.fromarray(drawn.integers(0, 256, (16, 16, 3), np.uint8)).resize((256, 256))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        (folder / f"{number:05}.jpg").write_bytes(file.getvalue())
        store.put(f"photos/{number:05}.jpg", file.getvalue())


def listed(place: bytes) -> int:
    """List a place, and count the images."""
    return sum(1 for _ in find_images(place, Rules()))


def read(place: bytes) -> int:
    """List a place and read all images in threads, as an update does, and count them."""
    with closing(read_images(find_images(place, Rules()))) as items:
        return sum(item.content is not None for item in items)


def many(count: int) -> dict[str, object]:
    """List many keys, and look at the memory of this process after each tenth."""
    files: Iterator[ImageFile] = find_images(b"s3://many/photos", Rules())
    next(files)
    megabytes, began = [], time.monotonic()
    for number, _ in enumerate(files, 2):
        if number % (count // 10) == 0:
            megabytes.append(round(resident() / common.MEGABYTE, 1))
    seconds = time.monotonic() - began
    print(f"{count:,} keys in {seconds:.1f} s ({count / seconds:,.0f}/s), MB after each tenth: {megabytes}")
    return {"keys": count, "seconds": round(seconds, 1), "megabytes": megabytes}


def resident() -> int:
    """Bytes of memory that this process has now (Linux), or has had at most."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@contextmanager
def pages(count: int) -> Iterator[str]:
    """Serve a bucket's list of `count` keys, page by page, from a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Pages,), {"count": count}))
        os.write(writing, str(server.server_port).encode())
        os.close(writing)
        threading.Timer(1800, os._exit, [1]).start()
        server.serve_forever()
    os.close(writing)
    with open(reading, "rb") as port:
        address = f"http://127.0.0.1:{int(port.read())}"
    try:
        yield address
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


class Pages(BaseHTTPRequestHandler):
    """Answers ListObjectsV2."""

    protocol_version = "HTTP/1.1"
    count: int

    def do_GET(self) -> None:
        """Make one page."""
        token = parse_qs(urlsplit(self.path).query).get("continuation-token", ["0"])[0]
        start, end = int(token), min(int(token) + PAGE, self.count)
        keys = "".join(
            f"<Contents><Key>photos/{number:09}.jpg</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{number:032x}&quot;</ETag><Size>{number}</Size></Contents>"
            for number in range(start, end)
        )
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < self.count else ""
        body = (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}{keys}</ListBucketResult>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:  # noqa: ANN401
        """Say nothing."""


if __name__ == "__main__":
    main()
