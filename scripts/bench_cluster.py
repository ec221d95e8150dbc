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
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bench_common as common
from bench_common import Took

# This process must stay smaller than those that it measures (see bench_scale), so others make the indexes.
if TYPE_CHECKING:
    from clipsearch.index.format import Record

TEXT, K = "a dog is sleeping", 10
COMMAND = (sys.executable, "-m", "clipsearch")
"""Takes the package from PYTHONPATH, if that is set."""
_PER_FOLDER = 1000
_BLOCK = 20_000
_NOTE = "rows per second of the clock, and of the processor (user and system, all threads); 10**6 bytes"


def main() -> None:
    """Measure the parts that are named, report."""
    parser = argparse.ArgumentParser(description="How fast indexes of parts are merged and searched.")
    parser.add_argument("parts", nargs="*", default=["merge", "search"], metavar="PART", help="merge, search")
    parser.add_argument(
        "--rows", type=int, nargs="*", default=[250_000, 1_000_000], help="rows in all indexes (default %(default)s)"
    )
    parser.add_argument("--shards", type=int, default=16, help="number of indexes (default %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="measured runs, after one to warm up (default %(default)s)")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="an earlier checkout, whose merge takes turns")
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
            points.append({"rows": rows, **measure(work, rows, given)})
            shutil.rmtree(work / "shards")
            shutil.rmtree(work / "merged", ignore_errors=True)
    common.finish(benchmark="cluster", unit=_NOTE, shards=given.shards, runs=given.runs, points=points)


def measure(work: Path, rows: int, given: argparse.Namespace) -> dict[str, Any]:
    """Measure the parts that are named for the indexes in `work`."""
    found: dict[str, Any] = {}
    if "merge" in given.parts:
        found["merge"] = measure_merge(work, rows, given.runs, given.before)
    if "search" in given.parts:
        found["search"] = measure_search(work, given.runs)
    return found


# -- parts -------------------------------------------------------------------------------------------------------------


def measure_merge(work: Path, rows: int, runs: int, before: Path | None) -> dict[str, Any]:
    """Merge all indexes, and copy their files as a ceiling, both until all is on the disk."""
    merge = common.Process([*COMMAND, "merge", "shards/*", "--index", "merged", "--quiet"], work)
    copy = common.Process(["sh", "-c", "cp -r shards copied && sync -f copied"], work)
    cases = {"merge": partial(took, merge, "merged"), "copy": partial(took, copy, "copied")}
    if before is not None:
        earlier = merge._replace(environment={"PYTHONPATH": str(before.resolve())})
        cases["before"] = partial(took, earlier, "merged")
    found = common.interleaved(cases, runs)
    shutil.rmtree(work / "copied")
    shutil.rmtree(work / "merged")
    weight = common.weigh(merge)
    common.show_weight(f"{rows} rows: merge", weight)
    rates = {
        name: {part: common.summary([rows / getattr(one, part) for one in times]) for part in Took._fields}
        for name, times in found.items()
    }
    for name, parts in rates.items():
        for part, figures in parts.items():
            common.show(f"{rows} rows: {name}, by the {part}", figures, "rows/s", 0)
    return {"rows_per_second": rates, "seconds": common.beside(found, "merge"), "memory": weight.shown()}


def measure_search(work: Path, runs: int) -> dict[str, Any]:
    """Ask all indexes, and the one that was merged of them, which is made if it is not there."""
    if not (work / "merged").exists():
        common.run([*COMMAND, "merge", "shards/*", "--index", "merged"], work)
    query = [common.clipsearch_command(), "query", TEXT, "-k", str(K), "--json", "--index"]
    cases = {
        name: partial(common.took, common.Process([*query, place], work))
        for name, place in (("merged", "merged"), ("shards", "shards/*"))
    }
    figures = common.beside(common.interleaved(cases, runs), "merged")
    for name, parts in figures.items():
        common.show(f"query, {name}", parts["clock"], "s")
        common.show(f"query, {name}, processor", parts["processor"], "s")
    return figures


def took(process: common.Process, made: str) -> Took:
    """Return what a process took; the folder that it is to make is deleted before."""
    shutil.rmtree(process.folder / made, ignore_errors=True)
    return common.took(process)


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
