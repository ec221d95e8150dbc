"""Benchmark of exact scores over a float16 matrix: clipsearch's ranking beside other libraries' kernels.

All in one process, on a memory-mapped matrix of random unit vectors that is in the system's page cache. Each kernel
gets chunks of rows in as many threads as there are cores, save those that have threads of their own; the error is
the greatest difference to float64 arithmetic. Then many queries at once through clipsearch's ranking. What is not
installed (pip install simsimd usearch) is left out. Run it with:

    python scripts/bench_ranking.py
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import bench_common as common
import numpy as np
import numpy.typing as npt

from clipsearch.search import topk
from clipsearch.system import cores

K = 10
_CHUNK, _BLOCK = 32_768, 256

Matrix = npt.NDArray[np.float16]
Vectors = npt.NDArray[np.float32]
Kernel = Callable[[Matrix, Vectors], npt.NDArray[Any]]
"""(N,) scores of (N, D) rows and one (D,) query."""


def main() -> None:
    """Make a matrix, measure, report."""
    parser = argparse.ArgumentParser(description="Seconds that exact scores take.")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the matrix (default %(default)s)")
    parser.add_argument("--dim", type=int, default=512, help="(default %(default)s)")
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 10, 100, 1000], help="at once, over a tenth")
    parser.add_argument("--runs", type=int, default=7, help="measured runs, after one to warm up (default %(default)s)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-ranking-") as name:
        matrix = make_matrix(Path(name) / "matrix.npy", given.rows, given.dim)
        kernels = measure_kernels(matrix, given.runs)
        many = measure_many(matrix[: given.rows // 10], given.queries, given.runs)
    common.finish(
        benchmark="ranking", unit="seconds", rows=given.rows, dim=given.dim, kernels=kernels, many_queries=many
    )


def make_matrix(path: Path, rows: int, dim: int) -> Matrix:
    """(rows, dim) random unit vectors, memory-mapped."""
    made = np.lib.format.open_memmap(path, "w+", np.float16, (rows, dim))
    for start in range(0, rows, _CHUNK):
        made[start : start + _CHUNK] = unit(start, min(_CHUNK, rows - start), dim)
    made.flush()
    return np.asarray(np.load(path, mmap_mode="r"))


def unit(seed: int, number: int, dim: int) -> Vectors:
    """(number, dim) random unit vectors."""
    vectors = np.random.default_rng(seed).standard_normal((number, dim), np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


# -- one query -----------------------------------------------------------------------------------------------


def measure_kernels(matrix: Matrix, runs: int) -> dict[str, Any]:
    """Seconds and error of each way to score all rows for one query; ranking included where it is clipsearch's."""
    (query,) = unit(1, 1, matrix.shape[1])
    truth = np.concatenate([part.astype(np.float64) @ query.astype(np.float64) for part in chunks(matrix)])
    ways: dict[str, Callable[[], Any]] = {"clipsearch, with ranking": lambda: topk.best(matrix, query[None], K)}
    errors: dict[str, float] = {}
    (ranked,) = topk.best(matrix, query[None], len(matrix))
    errors["clipsearch, with ranking"] = float(np.abs(ranked.scores - truth[ranked.rows]).max())
    for name, kernel in kernels().items():
        for threads in dict.fromkeys((1, cores.available())):
            label = f"{name}, {threads} threads"
            ways[label] = partial(in_threads, kernel, matrix, query, threads)
            errors[label] = float(np.abs(ways[label]() - truth).max())
    if importlib.util.find_spec("usearch"):
        from usearch.index import MetricKind, search

        half = query.astype(np.float16)
        ways["usearch exact search"] = lambda: search(
            matrix, half, K, MetricKind.IP, exact=True, threads=cores.available()
        )
    times = common.interleaved({name: partial(common.timed, way) for name, way in ways.items()}, runs)
    figures = {}
    for name, values in times.items():
        figures[name] = common.summary(values) | {"error": errors.get(name)}
        common.show(name, common.summary(values), "s")
        print(f"    error {errors[name]:.1e}" if name in errors else "    gives no scores but the best", flush=True)
    return figures


def kernels() -> dict[str, Kernel]:
    """Return the kernels that are installed."""
    import numkong
    import torch

    torch.set_num_threads(1)  # the threads are ours
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    found: dict[str, Kernel] = {
        "numpy, float16": lambda rows, query: rows @ query.astype(np.float16),
        "numpy, blocks in float32": numpy_blocks,
        "torch, float16": lambda rows, query: (
            torch.from_numpy(rows) @ torch.from_numpy(query.astype(np.float16))
        ).numpy(),
        "numkong, query in float16": lambda rows, query: np.asarray(
            numkong.cdist(query.astype(np.float16)[None], rows, metric="dot")
        )[0],
    }
    if importlib.util.find_spec("simsimd"):
        import simsimd

        found["simsimd, query in float16"] = lambda rows, query: np.asarray(
            simsimd.cdist(query.astype(np.float16)[None], rows, metric="dot")
        )[0]
    return found


def numpy_blocks(rows: Matrix, query: Vectors) -> Vectors:
    """Blocks that stay in a core's cache, converted one after the other."""
    block = np.empty((_BLOCK, rows.shape[1]), np.float32)
    scores = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        block[: len(part)] = part
        scores[start : start + len(part)] = (block @ query)[: len(part)]
    return scores


def in_threads(kernel: Kernel, matrix: Matrix, query: Vectors, threads: int) -> npt.NDArray[Any]:
    """Compute (N,) scores by a kernel in a number of threads."""
    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(lambda rows: kernel(rows, query), chunks(matrix))))


def chunks(matrix: Matrix) -> Iterator[Matrix]:
    """Score all rows, block by block."""
    return (matrix[start : start + _CHUNK] for start in range(0, len(matrix), _CHUNK))


# -- many queries --------------------------------------------------------------------------------------------


def measure_many(matrix: Matrix, numbers: list[int], runs: int) -> dict[int, Any]:
    """Return the seconds to rank the matrix for a number of queries at once."""
    queries = unit(2, max(numbers), matrix.shape[1])
    times = common.interleaved(
        {number: partial(common.timed, partial(topk.best, matrix, queries[:number], K)) for number in numbers}, runs
    )
    for number, values in times.items():
        common.show(f"clipsearch, {number} queries, {len(matrix)} rows", common.summary(values), "s")
    return {number: common.summary(values) for number, values in times.items()}


if __name__ == "__main__":
    main()
