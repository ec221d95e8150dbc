"""Benchmark of indexes of parts: how fast they are merged, and what it costs to search them as they are.

Whole processes, seen from outside; what they read is in the system's caches. The indexes hold random vectors of
picturebook's size, and records of files that do not exist. Beside the time of the clock stands that of the processor,
which other work on the machine changes less. Everything lies in a temporary folder that is deleted at the end: with the
default sizes 4 GB. TMPDIR names another place for it. Linux and macOS only. Run it with:

    python scripts/bench_cluster.py
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import bench_common as common

# This process must stay smaller than those that it measures (see bench_scale), so others make the indexes.
if TYPE_CHECKING:
    from clipsearch.index.format import Record

TEXT, K = "a dog is sleeping", 10
_PER_FOLDER = 1000
_BLOCK = 20_000
_NOTE = "rows per second of the clock, and of the processor (user and system, all threads); 10**6 bytes"


class Took(NamedTuple):
    """Seconds of one process."""

    clock: float
    processor: float


def main() -> None:
    """Measure the parts that are named, report."""
    parser = argparse.ArgumentParser(description="How fast indexes of parts are merged and searched.")
    parser.add_argument("parts", nargs="*", default=["merge", "search"], metavar="PART", help="merge, search")
    parser.add_argument(
        "--rows", type=int, nargs="*", default=[250_000, 1_000_000], help="rows in all indexes (default %(default)s)"
    )
    parser.add_argument("--shards", type=int, default=16, help="number of indexes (default %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="measured runs, after one to warm up (default %(default)s)")
    parser.add_argument("--make", type=int, nargs=2, help=argparse.SUPPRESS)  # in a process of its own
    given = parser.parse_args()
    if given.make:
        make_shards(*given.make)
        return
    with tempfile.TemporaryDirectory(prefix="bench-cluster-") as name:
        work = Path(name).resolve()
        common.isolate(work)
        points = []
        for rows in given.rows:
            print(f"{rows} rows in {given.shards} indexes: preparing ...", flush=True)
            common.run([sys.executable, __file__, "--make", str(rows), str(given.shards)], work)
            points.append({"rows": rows, **measure(work, rows, given.parts, given.runs)})
            shutil.rmtree(work / "shards")
            shutil.rmtree(work / "merged", ignore_errors=True)
    common.finish(benchmark="cluster", unit=_NOTE, shards=given.shards, runs=given.runs, points=points)


def measure(work: Path, rows: int, parts: Sequence[str], runs: int) -> dict[str, Any]:
    """Measure the parts that are named for the indexes in `work`."""
    found: dict[str, Any] = {}
    if "merge" in parts:
        found["merge"] = measure_merge(work, rows, runs)
    if "search" in parts:
        found["search"] = measure_search(work, runs)
    return found


# -- parts -------------------------------------------------------------------------------------------------------------


def measure_merge(work: Path, rows: int, runs: int) -> dict[str, Any]:
    """Merge all indexes, and copy their files as a ceiling, both until all is on the disk."""
    merge = [common.clipsearch_command(), "merge", "shards/*", "--index", "merged", "--quiet"]
    copy = ["sh", "-c", "cp -r shards copied && sync -f copied"]
    cases = {"merge": lambda: took(merge, work, "merged"), "copy": lambda: took(copy, work, "copied")}
    found = repeated(cases, runs)
    shutil.rmtree(work / "copied")
    shutil.rmtree(work / "merged")
    weight = common.weigh(common.Process(merge, work))
    common.show_weight(f"{rows} rows: merge", weight)
    rates = {
        name: common.summary([rows / getattr(one, name) for one in found["merge"]]) for name in ("clock", "processor")
    }
    for name, figures in rates.items():
        common.show(f"{rows} rows: merge, by the {name}", figures, "rows/s", 0)
    ratio = common.summary(common.ratios([one.clock for one in found["merge"]], [one.clock for one in found["copy"]]))
    common.show(f"{rows} rows: merge / copy of the files", ratio, "times", 2)
    return {"rows_per_second": rates, "times_a_copy": ratio, "memory": weight.shown()}


def measure_search(work: Path, runs: int) -> dict[str, Any]:
    """Ask all indexes, and the one that was merged of them, which is made if it is not there."""
    clipsearch = common.clipsearch_command()
    if not (work / "merged").exists():
        common.run([clipsearch, "merge", "shards/*", "--index", "merged"], work)
    query = [clipsearch, "query", TEXT, "-k", str(K), "--json"]
    cases = {
        name: lambda place=place: took([*query, "--index", place], work)
        for name, place in (("merged", "merged"), ("shards", "shards/*"))
    }
    found = repeated(cases, runs)
    figures: dict[str, Any] = {}
    for name, times in found.items():
        figures[name] = {part: common.summary([getattr(one, part) for one in times]) for part in Took._fields}
        common.show(f"query, {name}", figures[name]["clock"], "s")
        common.show(f"query, {name}, processor", figures[name]["processor"], "s")
    return figures


def repeated(cases: dict[str, Callable[[], Took]], runs: int) -> dict[str, list[Took]]:
    """Run all cases in turn, after one round to warm up, so that a slow minute hits them all."""
    found: dict[str, list[Took]] = {name: [] for name in cases}
    for turn in range(runs + 1):
        for name, case in cases.items():
            one = case()
            if turn:
                found[name].append(one)
    return found


def took(command: Sequence[str], work: Path, made: str | None = None) -> Took:
    """Run a process, and return the seconds that it took; the folder that it is to make is deleted before."""
    if made:
        shutil.rmtree(work / made, ignore_errors=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(command, cwd=work, check=True, capture_output=True)
    clock = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Took(clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


# -- indexes -----------------------------------------------------------------------------------------------------------


def make_shards(rows: int, shards: int) -> None:
    """Make the indexes of all parts of a root with so many files that do not exist, in the folder `shards`."""
    from bench_query import keep_text_tower

    from clipsearch.images.parts import Part
    from clipsearch.index.writing import Writer
    from clipsearch.models.disk.catalog import BUNDLED
    from clipsearch.models.disk.files import locate

    model = keep_text_tower(locate(BUNDLED).folder)
    root = os.fsencode(Path.cwd() / "images")
    paths = [b"%06d/%09d.jpg" % (number // _PER_FOLDER, number) for number in range(rows)]
    for number in range(1, shards + 1):
        part, folder = Part(number, shards), Path("shards", f"{number:02}")
        with Writer.locked(folder) as writer:
            writer.set_part(part)
            writer.set_model(model)
            writer.set_root(root, {"readers": "all"})
            writer.commit()
        fill(folder, [root + b"/" + path for path in paths if part.holds(path)], model.dim)


def fill(folder: Path, paths: Sequence[bytes], dim: int) -> None:
    """Write records and vectors into an empty index, without all that makes it safe."""
    import numpy as np

    from clipsearch.index.format import DATABASE, MATRIX, RECORD, header

    random = np.random.default_rng(len(paths))
    with (folder / MATRIX).open("wb") as file:
        file.write(header(len(paths), dim))
        for start in range(0, len(paths), _BLOCK):
            vectors = random.standard_normal((min(_BLOCK, len(paths) - start), dim), np.float32)
            file.write((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("<f2").tobytes())
    with closing(sqlite3.connect(folder / DATABASE)) as database, database:
        places = ", ".join("?" * (RECORD.count(",") + 1))
        rows = (record(path, row) for row, path in enumerate(paths))
        database.executemany(f"INSERT INTO images ({RECORD}) VALUES ({places})", rows)  # noqa: S608


def record(path: bytes, row: int) -> Record:
    """Return the record of an image that might be there."""
    from clipsearch.index.format import Record

    digest = blake2b(path, digest_size=16).digest()
    stamp = int.from_bytes(digest[:4], "big") * 10**9
    return Record(path, row, 123_456, stamp, digest, 640, 480, ctime_ns=stamp, inode=stamp // 10**9)


if __name__ == "__main__":
    main()
