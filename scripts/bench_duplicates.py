"""Benchmark of the time and memory of `clipsearch duplicates` on random vectors with planted duplicates.

Whole processes, on an index of random unit vectors without any image. Some rows are copies of others (the same
content), some are near duplicates (noise added until the cosine is about 0.99); the command has to find them all and
nothing else. Beside it the physical ceiling: the products of all pairs by NumPy's BLAS in float32, block by block, each
pair once, from vectors in memory, and nothing done with them. Run it with:

    python scripts/bench_duplicates.py --rows 100000
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

import bench_common as common
import numpy as np
import numpy.typing as npt

_COSINE = 0.99
_SECONDS_BETWEEN = 60
_BLOCK = 4096


def main() -> None:
    """Prepare, measure, report."""
    parser = argparse.ArgumentParser(description="Time and memory of clipsearch duplicates.")
    parser.add_argument("--rows", type=int, default=100_000, help="images in the index (default %(default)s)")
    parser.add_argument("--dim", type=int, default=512, help="of a vector (default %(default)s)")
    parser.add_argument("--planted", type=int, default=1000, help="copies, and near duplicates (default %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="measured runs, after one to warm up (default %(default)s)")
    given = parser.parse_args()
    if 3 * given.planted > given.rows:
        sys.exit("Each original can have one duplicate: --planted has to be less than a third of --rows.")
    with tempfile.TemporaryDirectory(prefix="bench-duplicates-") as name:
        work = Path(name).resolve()
        common.isolate(work)
        vectors = planted(given.rows, given.dim, given.planted)
        make_index(work, vectors, given.planted)
        command = [common.clipsearch_command(), "duplicates", "--json"]
        ways = {"duplicates": common.Process(command, work), "--exact": common.Process([*command, "--exact"], work)}
        check(ways, given.planted)
        figures = measure(ways, vectors, given.runs)
    common.finish(
        benchmark="duplicates",
        unit="seconds; 10**6 bytes",
        rows=given.rows,
        dim=given.dim,
        planted=given.planted,
        runs=given.runs,
        **figures,
    )


def planted(rows: int, dim: int, number: int) -> npt.NDArray[np.float32]:
    """Random unit vectors; the first `number` again as the last ones, and the next ones, with noise, before these."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((rows, dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    noise = random.standard_normal((number, dim), np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    near = _COSINE * vectors[number : 2 * number] + np.sqrt(1 - _COSINE**2) * noise
    vectors[rows - 2 * number : rows - number] = near / np.linalg.norm(near, axis=1, keepdims=True)
    vectors[rows - number :] = vectors[:number]
    return vectors.astype(np.float16).astype(np.float32)


def make_index(folder: Path, vectors: npt.NDArray[np.float32], copies: int) -> None:
    """Make an index with these vectors in `folder`; the last `copies` have the contents of the first."""
    from clipsearch.index.format import FOLDER, ModelRecord, Record
    from clipsearch.index.writing import Writer

    rows, dim = vectors.shape
    contents = [*range(rows - copies), *range(copies)]
    with Writer.locked(folder / FOLDER) as writer:
        writer.set_model(ModelRecord("random", None, "0" * 32, dim))
        writer.set_root(os.fsencode(folder / "images"), {})
        for start in range(0, rows, _BLOCK):
            records = [
                Record(
                    os.fsencode(folder / f"images/{row // 1000:04}/{row:07}.jpg"),
                    None,
                    100_000,
                    row * _SECONDS_BETWEEN * 10**9,
                    contents[row].to_bytes(16, "little"),
                    4000,
                    3000,
                )
                for row in range(start, min(start + _BLOCK, rows))
            ]
            writer.add(records, vectors[start : start + _BLOCK])
        writer.commit()


def check(ways: dict[str, common.Process], number: int) -> None:
    """Exit unless the duplicates are what was planted: a fast wrong answer is no figure."""
    for name, kinds in (("duplicates", {"copy": number, "near": number}), ("--exact", {"copy": number})):
        marks = [row["mark"] for row in json.loads(common.run(*ways[name])[1])]
        found = {mark: marks.count(mark) for mark in set(marks)}
        if found != {**kinds, "keep": sum(kinds.values())}:
            sys.exit(f"{name}: {number} of a kind are planted, found: {found}")


def products(vectors: npt.NDArray[np.float32]) -> None:
    """The cosine of every pair, once, and nothing done with it."""
    for start in range(0, len(vectors), _BLOCK):
        for other in range(start, len(vectors), _BLOCK):
            np.dot(vectors[start : start + _BLOCK], vectors[other : other + _BLOCK].T)


def measure(
    ways: dict[str, common.Process], vectors: npt.NDArray[np.float32], runs: int
) -> dict[str, dict[str, object]]:
    """Seconds, interleaved, and memory from runs of its own."""
    cases = {name: partial(common.seconds, process) for name, process in ways.items()}
    times = common.interleaved({**cases, "products": partial(common.timed, partial(products, vectors))}, runs)
    figures: dict[str, object] = {name: common.summary(values) for name, values in times.items()}
    for name, values in times.items():
        common.show(name, common.summary(values), "s")
    ratio = common.summary(common.ratios(times["duplicates"], times["products"]))
    common.show("duplicates / products", ratio, "")
    memory = {}
    for name, process in ways.items():
        weight = common.weigh(process)
        common.show_weight(name, weight)
        memory[name] = weight.shown()
    return {"seconds": figures, "ratio": {"duplicates / products": ratio}, "memory": memory}


if __name__ == "__main__":
    main()
