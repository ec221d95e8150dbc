"""Benchmark of `clipsearch serve`: searches through its API, many clients at once, memory, thumbnails, the page.

A server in a process of its own for each index of random unit vectors, asked over HTTP with new words each time. With a
Chromium, the page's first paint and the time from a word that is typed to its hits are measured as well. Run it with:

    python scripts/bench_serve.py --rows 1000 100000 1000000

With `--clip-retrieval PYTHON`, a Python that has it, its back end searches the same vectors beside it, in turns
(`peer_clip_retrieval.py` says what of it is used).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import bench_common as common
from bench_query import keep_text_tower, make_index

from clipsearch.index.format import FOLDER

TOKEN = "a-token-for-the-benchmark"  # noqa: S105  (no secret)
WORDS = ("dog", "cat", "horse", "car", "house", "boat", "tree", "girl", "man", "pizza", "clock", "bird", "lamp", "shoe")
PLACES = ("in the snow", "on a beach", "at night", "in a kitchen", "under a tree", "by a lake", "in fog", "on a roof")
CLIENTS = 50
HITS = 120


def main() -> None:
    """Prepare, measure, report."""
    parser = argparse.ArgumentParser(description="How fast the server is, and how much memory it takes.")
    common.add_options(parser, runs=200)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 100_000], help="images in each index")
    parser.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="pictures for thumbnails (default: the samples)"
    )
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="a folder to keep; indexes in it are used again")
    parser.add_argument("--clip-retrieval", metavar="PYTHON", help="a Python with clip-retrieval, to compare with")
    given = parser.parse_args()
    figures: dict[str, Any] = {"machine": common.machine(), "indexes": []}
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as name:
        work = (given.work or Path(name)).resolve()
        work.mkdir(exist_ok=True)
        common.isolate(work)
        *_, (model, model_folder) = common.models(given.model, work, vit=not given.no_vit).items()
        record = keep_text_tower(model_folder)
        for rows in given.rows:
            folder = work / str(rows)
            folder.mkdir(exist_ok=True)
            if not (folder / FOLDER).exists():
                make_index(folder, record, rows, notebook=False)
            found = {"model": model, "rows": rows, **of_index(folder, given.runs, given.clip_retrieval)}
            print(json.dumps(found))
            figures["indexes"].append(found)
        figures["thumbnails"] = of_thumbnails(work, given.pictures or Path(__file__).parent.parent / "sample-images")
        print(json.dumps(figures["thumbnails"]))
    print(json.dumps(figures))


class Server:
    """A server in a process of its own."""

    def __init__(self, folder: Path) -> None:
        started = time.perf_counter()
        command = [sys.executable, "-m", "clipsearch", "serve", "--port", "0", "--token", TOKEN]
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        self.port = int(self.address.split(":")[2].split("/")[0])
        self.seconds = time.perf_counter() - started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def connect(self) -> http.client.HTTPConnection:
        """Make a connection, for requests one after the other."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def processor_seconds(self) -> float:
        """Seconds of processor time so far, of all threads (Linux)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> dict[str, float]:
        """Memory of the process in 10**6 bytes: all that is in memory, and without mapped files (Linux)."""
        text = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        kb = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if line.endswith(" kB")}
        return {"resident": kb["VmRSS"] * 1024 / 1e6, "own": kb["RssAnon"] * 1024 / 1e6}


def ask(connection: http.client.HTTPConnection, path: str, method: str = "GET", body: bytes | None = None) -> bytes:
    """The body of a response, which must be a good one."""
    connection.request(method, path, body, {"Authorization": f"Bearer {TOKEN}"})
    response = connection.getresponse()
    content = response.read()
    assert response.status == 200, (response.status, content[:200])
    return content


def search(number: int, **more: object) -> str:
    """The address of a search that was not asked before."""
    words = f"a {WORDS[number % len(WORDS)]} {PLACES[number // len(WORDS) % len(PLACES)]} number {number}"
    return "/api/search?" + urlencode({"q": words, "k": HITS, **more})


def timed(server: Server, connection: http.client.HTTPConnection, paths: list[str]) -> dict[str, float]:
    """Milliseconds of requests, one after the other; also of processor time, which depends less on other work."""
    times = []
    before = server.processor_seconds()
    for path in paths:
        started = time.perf_counter()
        ask(connection, path)
        times.append(1000 * (time.perf_counter() - started))
    return spread(times) | {"processor": 1000 * (server.processor_seconds() - before) / len(paths)}


def spread(times: list[float]) -> dict[str, float]:
    """The figures of several times."""
    ordered = sorted(times)
    last = ordered[max(0, int(len(ordered) * 0.99) - 1)]
    return {"median": statistics.median(ordered), "p99": last, "least": ordered[0]}


def of_index(folder: Path, runs: int, peer: str | None) -> dict[str, Any]:
    """Everything about one index; `peer` is the Python of clip-retrieval."""
    with Server(folder) as server:
        at_rest = server.memory_mb()
        connection = server.connect()
        ask(connection, search(100_000))  # loads the text tower, and reads the matrix
        ask(connection, search(100_001))
        figures: dict[str, Any] = {
            "start_seconds": round(server.seconds, 3),
            "memory_at_rest_mb": rounded(at_rest),
            "new_words_ms": rounded(timed(server, connection, [search(number) for number in range(runs)])),
            "known_words_ms": rounded(
                timed(server, connection, [search(5, min_confidence=n / 1000) for n in range(1, min(runs, 40) + 1)])
            ),
            "new_words_cut_off_ms": rounded(
                timed(
                    server,
                    connection,
                    [search(20_000 + number, min_confidence=0.01) for number in range(min(runs, 20))],
                )
            ),
            "same_again_ms": rounded(timed(server, connection, [search(5)] * runs)),
            "with_filter_ms": rounded(
                timed(server, connection, [search(number, orientation="portrait") for number in range(min(runs, 20))])
            ),
            "browse_first_ms": rounded(timed(server, connection, ["/api/search?k=120"])),
            "browse_again_ms": rounded(timed(server, connection, ["/api/search?k=120&offset=120"] * min(runs, 20))),
        }
        started = time.perf_counter()
        pages = [search(7, k=1000, offset=start) for start in range(0, 100_000, 10_000)]
        hits = [len(json.loads(ask(connection, page))["hits"]) for page in pages]
        figures["ten_pages_up_to_100000_seconds"] = round(time.perf_counter() - started, 3)
        figures["hits_of_these"] = sum(hits)
        figures["memory_after_mb"] = rounded(server.memory_mb())
        figures["many"] = many(server)
        figures["page"] = of_page(server.address)
        if peer:
            figures["beside"] = beside(server, peer, folder, min(runs, 100))
    return figures


def many(server: Server) -> dict[str, float]:
    """Searches per second of many clients at once, each with a connection of its own."""

    def client(number: int) -> int:
        connection = server.connect()
        for search_number in range(4):
            ask(connection, search(10_000 + 100 * number + search_number))
        return 4

    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        done = sum(pool.map(client, range(CLIENTS)))
    return {"clients": CLIENTS, "searches": done, "per_second": round(done / (time.perf_counter() - started), 1)}


def beside(server: Server, python: str, folder: Path, runs: int) -> dict[str, Any]:
    """Milliseconds of the same searches here and in clip-retrieval's back end, in turns."""
    port = free_port()
    script = Path(__file__).with_name("peer_clip_retrieval.py")
    command = [python, str(script), str(folder / FOLDER / "embeddings.npy"), str(folder / "clip-retrieval"), str(port)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            ask_peer(process, port, "a dog")
            ours = server.connect()
            times: list[float] = []
            theirs: list[float] = []
            for number in range(runs):
                times.append(timed(server, ours, [search(50_000 + number)])["median"])
                started = time.perf_counter()
                assert len(ask_peer(process, port, f"a picture of the number {number}")) == HITS
                theirs.append(1000 * (time.perf_counter() - started))
        finally:
            process.terminate()
    ratio = statistics.median(mine / other for mine, other in zip(times, theirs, strict=True))
    return {
        "clipsearch": rounded(spread(times)),
        "clip_retrieval": rounded(spread(theirs)),
        "clipsearch / clip_retrieval": round(ratio, 3),
    }


def ask_peer(process: subprocess.Popen[bytes], port: int, text: str) -> list[object]:
    """The hits of clip-retrieval's back end, which is waited for while it starts."""
    asked = {"text": text, "modality": "image", "num_images": HITS, "num_result_ids": HITS, "indice_name": "pictures"}
    asked |= dict.fromkeys(("use_mclip", "deduplicate", "use_safety_model", "use_violence_detector"), False)
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            connection.request("POST", "/knn-service", json.dumps(asked), {"Content-Type": "application/json"})
            return list(json.loads(connection.getresponse().read()))
        except ConnectionRefusedError:
            if process.poll() is not None:
                sys.exit("clip-retrieval's back end has ended.")
            time.sleep(0.5)
        finally:
            connection.close()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def of_thumbnails(work: Path, pictures: Path) -> dict[str, float]:
    """Thumbnails per second: the first time, and from the cache."""
    folder = work / "pictures"
    for old in (folder, work / "cache" / "thumbnails"):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(pictures, folder / "all")
    command = [common.clipsearch_command(), "index", "all", "--model", "picturebook"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    with Server(folder) as server:
        hits = json.loads(ask(server.connect(), "/api/search?q=a+dog&k=1000"))["hits"]
        paths = [f"/api/thumbnail/{hit['row']}?id={hit['id']}" for hit in hits]

        def all_of_them() -> float:
            started = time.perf_counter()
            with ThreadPoolExecutor(6) as pool:  # as many as a browser has
                list(pool.map(lambda path: ask(server.connect(), path), paths))
            return len(paths) / (time.perf_counter() - started)

        return {
            "pictures": len(paths),
            "first_per_second": round(all_of_them()),
            "cached_per_second": round(all_of_them()),
        }


def of_page(address: str) -> dict[str, float] | None:
    """Milliseconds to the first paint, and from a word that is typed to its hits; None without a browser."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        return None
    from playwright.sync_api import sync_playwright

    paints, hits = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--disable-gpu"])
        for number in range(5):
            page = browser.new_context().new_page()
            page.goto(address)
            paints.append(
                page.evaluate("""async () => {
                    for (;;) {
                      const [paint] = performance.getEntriesByName("first-contentful-paint");
                      if (paint) return paint.startTime;
                      await new Promise(requestAnimationFrame);
                    }
                }""")
            )
            page.wait_for_load_state("networkidle")  # all pictures are shown at first, and these have none
            hits.append(
                page.evaluate(
                    """async (words) => {
                    const box = document.getElementById("words");
                    box.value = words;
                    const from = performance.now();
                    box.dispatchEvent(new Event("input"));
                    const found = "#grid .tile[aria-label*=' score ']"; // and not those of all pictures
                    while (!document.querySelector(found)) await new Promise(requestAnimationFrame);
                    return performance.now() - from;
                }""",
                    f"a {WORDS[number]} that is new",
                )
            )
        browser.close()
    return rounded({"first_paint_ms": statistics.median(paints), "typed_to_hits_ms": statistics.median(hits)})


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Return figures with one decimal place."""
    return {name: round(value, 1) for name, value in figures.items()}


if __name__ == "__main__":
    main()
