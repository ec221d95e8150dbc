"""Benchmark of `query --approximate`: what codes find of the exact best, and what they cost beside reading all vectors.

The index holds the vectors of the samples, each many times with noise of various strength, so that every query has many
near neighbours; or those of a file (`--vectors`, float16, of the bundled model); or those of pictures that `python -m
scripts.picturebook draw FOLDER` drew (`--drawn FOLDER`, which embeds them once). Recall is the share of the exact best
10 that an approximate search finds, over the captions of the samples; times are those of whole processes. Run it with:

    python scripts/bench_codes.py --rows 1000000 10000000

Ten million rows take 14 GB in the system's temporary folder (TMPDIR names another). With `--folder`, which takes one
size, the index is made there and left there, and the next run with the same folder measures it as it is: with more rows
than memory holds, making it takes much longer than asking it.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import bench_common as common
import numpy as np
import numpy.typing as npt
from bench_query import keep_text_tower, record_of

if TYPE_CHECKING:
    from clipsearch.index.format import ModelRecord

SAMPLES = Path(__file__).resolve().parent.parent / "sample-images"
TEXT, K = "a dog is sleeping", 10
EXACT, APPROXIMATE = "exact", "--approximate"
WAYS = {
    "-k 10": ["-k", "10"],
    "-k 1000": ["-k", "1000"],
    "--under": ["-k", "10", "--under", "images/0000"],
    "--after": ["-k", "10", "--after", "2020-02-01"],
}
"""Options that both searches are timed with."""
_BLOCK_ROWS = 65_536
_PICTURES = 500
"""Drawn pictures embedded at a time."""


def main() -> None:
    """Prepare, measure, report."""
    parser = argparse.ArgumentParser(description="What an approximate search finds and costs.")
    parser.add_argument("--runs", type=int, default=5, help="measured runs, after one to warm up (default 5)")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000], help="images in the index")
    parser.add_argument("--queries", type=int, default=200, help="texts whose recall is measured (default 200)")
    parser.add_argument("--vectors", type=Path, help="a .npy file with real vectors, instead of noisy samples")
    parser.add_argument("--drawn", type=Path, help="a folder of drawn pictures, instead of noisy samples")
    parser.add_argument("--only-recall", action="store_true", help="leave the times out")
    parser.add_argument("--folder", type=Path, help="where the index is made and left, or is already")
    parser.add_argument("--only-make", action="store_true", help="make the index in that folder, and measure nothing")
    given = parser.parse_args()
    if given.folder and len(given.rows) > 1:
        parser.error("a folder takes one size")
    if given.drawn and given.vectors:
        parser.error("the vectors are those of --drawn or of --vectors")
    if given.only_make and not given.folder:
        parser.error("--only-make needs --folder, or what was made is deleted")
    if given.drawn:
        given.vectors = embedded(given.drawn)
    found = {}
    for rows in given.rows:
        with given_folder(given.folder) if given.folder else tempfile.TemporaryDirectory(prefix="bench-codes-") as name:
            work = Path(name).resolve()
            common.isolate(work)
            found[rows] = measure(work, rows, given)
    common.finish(benchmark="codes", unit="seconds; 10**6 bytes", runs=given.runs, queries=given.queries, rows=found)


@contextmanager
def given_folder(folder: Path) -> Iterator[str]:
    """A folder that stays."""
    folder.mkdir(parents=True, exist_ok=True)
    yield str(folder)


def measure(work: Path, rows: int, given: argparse.Namespace) -> dict[str, Any]:
    """Make an index of so many rows if there is none, and measure it."""
    from clipsearch import load_model
    from clipsearch.index.format import CODES, FOLDER, MATRIX

    texts = captions()[: given.queries]
    model = load_model("picturebook")
    asked = np.asarray(model.embed_texts(texts), np.float32)
    ((_, folder),) = common.models(None, work, vit=False).items()
    known = keep_text_tower(folder)
    print(f"{rows} rows", flush=True)
    took: float | None = None
    if not (work / FOLDER / CODES.name).exists():
        source = np.load(given.vectors, mmap_mode="r") if given.vectors else samples(model)
        took = make_index(work, known, real(source, rows) if given.vectors else noisy(source, rows))
        print(f"codes made in {took:.1f} s", flush=True)
    if given.only_make:
        return {"seconds_to_make": took}
    sizes = {name: (work / FOLDER / name).stat().st_size / common.MEGABYTE for name in (MATRIX, CODES.name)}
    print(", ".join(f"{name} {size:.0f} MB" for name, size in sizes.items()), flush=True)
    figures: dict[str, Any] = {"seconds_to_make": took, "megabytes": sizes, "recall": recall(work, asked)}
    if not given.only_recall:
        figures |= times(work, given.runs)
    return figures


def captions() -> list[str]:
    """The captions of the samples."""
    with (SAMPLES / "captions.csv").open(encoding="utf-8", newline="") as file:
        return [row[-1] for row in list(csv.reader(file))[1:]]


def samples(model: Any) -> npt.NDArray[np.float32]:  # noqa: ANN401  (a loaded model)
    """(253, D) the vectors of the samples."""
    paths = sorted(path for path in SAMPLES.rglob("*") if path.suffix in (".jpg", ".png", ".webp"))
    return np.asarray(model.embed_images(paths), np.float32)


def embedded(drawn: Path) -> Path:
    """The file with the vectors of all drawn pictures; it is made if it is not there, from where that was ended."""
    from PIL import Image

    from clipsearch import load_model

    model = load_model("picturebook")
    pictures = np.load(drawn / "pictures.npy", mmap_mode="r")
    path, under_way = drawn / "vectors.npy", drawn / "vectors.part"
    if not path.exists():
        size = 2 * len(model.embed_texts(["a"])[0])
        with under_way.open("ab") as file:
            done = file.tell() // size
            file.truncate(done * size)
            for start in range(done, len(pictures), _PICTURES):
                block = [Image.fromarray(picture) for picture in pictures[start : start + _PICTURES]]
                file.write(np.asarray(model.embed_images(block), "<f2").tobytes())
                file.flush()
                print(f"{start + len(block)} of {len(pictures)} pictures embedded", flush=True)
        np.save(path, np.fromfile(under_way, "<f2").reshape(len(pictures), -1))
        under_way.unlink()
    return path


def noisy(source: npt.NDArray[np.float32], rows: int) -> Iterator[npt.NDArray[np.float32]]:
    """Blocks of vectors whose cosine with one of `source` is from .78 to .96."""
    random = np.random.default_rng(0)
    for start in range(0, rows, _BLOCK_ROWS):
        number = min(_BLOCK_ROWS, rows - start)
        noise = random.standard_normal((number, source.shape[1]), np.float32)
        noise *= random.uniform(0.3, 0.8, (number, 1)).astype(np.float32) / np.linalg.norm(noise, axis=1, keepdims=True)
        vectors = source[random.integers(0, len(source), number)] + noise
        yield vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def real(source: npt.NDArray[np.float16], rows: int) -> Iterator[npt.NDArray[np.float32]]:
    """Blocks of the vectors of a file."""
    for start in range(0, min(rows, len(source)), _BLOCK_ROWS):
        yield source[start : min(start + _BLOCK_ROWS, rows)].astype(np.float32)


def make_index(work: Path, model: ModelRecord, blocks: Iterator[npt.NDArray[np.float32]]) -> float:
    """Write an index with codes; the seconds that the codes took."""
    from clipsearch.index.format import FOLDER
    from clipsearch.index.writing import Writer

    with Writer.locked(work / FOLDER) as writer:
        writer.set_model(model)
        writer.set_root(os.fsencode(work / "images"), {})
        first = 0
        for block in blocks:
            writer.add([record_of(work, first + row) for row in range(len(block))], block)
            first += len(block)
        writer.want_codes(wanted=True)
        writer.commit()
        return common.timed(writer.make_codes)


def recall(work: Path, asked: npt.NDArray[np.float32]) -> dict[str, float]:
    """The share of the exact best that an approximate search finds, by number of candidates."""
    from clipsearch.index.format import FOLDER
    from clipsearch.index.reading import Store
    from clipsearch.search import approximate, topk

    found = {}
    store = Store.open(work / FOLDER)
    with store.snapshot():
        matrix, _ = store.matrix()
        codes = approximate.Approximate(store, matrix)
        exact = [ranked.rows[:K] for ranked in topk.best(matrix, asked, K)]
        usual, share = approximate._CANDIDATES, len(matrix) // approximate._SHARE  # noqa: SLF001
        for number in sorted({usual // 16, usual // 4, usual, max(usual, share)}):
            with mock.patch.multiple(approximate, _CANDIDATES=number, _SHARE=len(matrix)):  # no share of the rows
                masks = (codes.candidates(query[np.newaxis], K, None, len(matrix)) for query in asked)
                hit = [
                    np.mean(mask[rows]) if mask is not None else 1.0 for mask, rows in zip(masks, exact, strict=True)
                ]
            found[str(number)] = round(float(np.mean(hit)), 4)
            print(f"recall@{K} with {number} candidates: {found[str(number)]}", flush=True)
    store.close()
    return found


def times(work: Path, runs: int) -> dict[str, Any]:
    """Time whole processes of both searches, with several options."""
    ask = [common.clipsearch_command(), "query", TEXT]
    processes = {
        f"{way} {how}": common.Process([*ask, *options, *([] if how == EXACT else [how])], work)
        for way, options in WAYS.items()
        for how in (EXACT, APPROXIMATE)
    }
    seconds = common.interleaved({name: partial(common.seconds, one) for name, one in processes.items()}, runs)
    figures: dict[str, Any] = {}
    for name, values in seconds.items():
        figures[name] = common.summary(values)
        common.show(name, figures[name], "s")
    for how in (EXACT, APPROXIMATE):
        weight = common.weigh(processes[f"-k 10 {how}"])
        common.show_weight(how, weight)
        figures[f"memory {how}"] = weight.shown()
    return figures


if __name__ == "__main__":
    main()
