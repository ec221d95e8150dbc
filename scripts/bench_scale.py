"""Benchmark of the time and memory of `clipsearch` with very many images.

Whole processes, seen from outside; what they read is in the system's caches. Where nothing may hide behind a model,
pictures get their own pixels as vectors, and what is left is the program's own work. Everything lies in a temporary
folder that is deleted at the end. With the default sizes it takes a quarter of an hour, and at a time 1.3 GB and a
million files. TMPDIR names another place for it, say /dev/shm. Linux and macOS only. Run it with:

    python scripts/bench_scale.py
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import bench_common as common

# This process must stay smaller than those that it measures: Linux counts the greatest size of a process from before
# its `exec`, when it was a copy of ours. So whatever needs NumPy or clipsearch happens in a process of its own.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from clipsearch.index.format import Record

TEXT, K = "a dog is sleeping", 3
PER_FOLDER = 1000
SIDE = 8
"""Pixels of each picture, across and down."""
BATCH = 32
_BLOCK = 50_000
_MEGABYTE = 1_000_000
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
_NOTE = "pictures of the parts files and memory_without_model get their own pixels as vectors: no model runs"


class Cost(NamedTuple):
    """Time and memory of one process."""

    seconds: float
    peak_mb: float
    """The most memory it had, in 10**6 bytes, mapped files included."""
    own_mb: float | None
    """The largest memory without mapped files, sampled every 5 ms; None if the system does not report it."""
    stdout: str


def main() -> None:
    """Measure all parts, report."""
    parser = argparse.ArgumentParser(description="Seconds and memory of clipsearch with very many images.")
    parser.add_argument("--files", type=int, default=100_000, help="small pictures, 0 for none (default %(default)s)")
    parser.add_argument(
        "--records", type=int, default=1_000_000, help="records alone, 0 for none (default %(default)s)"
    )
    parser.add_argument(
        "--pictures", type=int, nargs="*", default=[500, 2000, 8000], help="numbers of pictures through picturebook"
    )
    parser.add_argument(
        "--without-model",
        type=int,
        nargs="*",
        default=[10_000, 40_000, 160_000],
        help="numbers of pictures without a model",
    )
    parser.add_argument("--runs", type=int, default=5, help="measured runs, after one to warm up (default %(default)s)")
    parser.add_argument("--index-without-model", type=Path, help=argparse.SUPPRESS)  # in a process of its own
    parser.add_argument("--make-records", type=int, help=argparse.SUPPRESS)  # the same
    given = parser.parse_args()
    if given.index_without_model:
        index_without_model(given.index_without_model)
    elif given.make_records:
        make_records(given.make_records)
    else:
        with tempfile.TemporaryDirectory(prefix="bench-scale-") as name:
            work = Path(name).resolve()
            common.isolate(work)
            parts = measure(work, given)
        common.finish(benchmark="scale", unit="seconds; 10**6 bytes", runs=given.runs, note=_NOTE, **parts)


def measure(work: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Run the selected parts, each of which removes its files."""
    parts: dict[str, Any] = {}
    if given.files:
        layouts = {
            "spread": (PER_FOLDER, ".bmp"),
            "one_folder": (given.files, ".bmp"),
            "without_ending": (PER_FOLDER, ""),
        }
        parts["files"] = {name: measure_files(work, given.files, *how, given.runs) for name, how in layouts.items()}
        parts["looking"] = measure_looking(work, given.files, given.runs)
    if given.records:
        parts["records"] = measure_records(work, given.records, given.runs)
    if given.without_model:
        parts["memory_without_model"] = measure_memory(work, given.without_model, with_model=False)
    if given.pictures:
        parts["memory_with_picturebook"] = measure_memory(work, given.pictures, with_model=True)
    return parts


# -- parts -------------------------------------------------------------------------------------------------------------


def measure_files(work: Path, count: int, per_folder: int, ending: str, runs: int) -> dict[str, Any]:
    """A first run without a model over small files, and then the real command with nothing to do."""
    label = f"{count} files, {min(count, per_folder)} a folder, {ending or 'no ending'}"
    with folder_of(work, label) as folder:
        draw(folder / "images", count, per_folder, ending)
        first = watched(without_model(folder / "images"), folder)
        phases = json.loads(first.stdout)
        tell(f"{label}: first run without a model", [first], f"compare {phases['compare']} s, read {phases['read']} s")
        again = repeated([common.clipsearch_command(), "index", "--json"], folder, runs, f"{label}: nothing to do")
        return {"count": count, "per_folder": per_folder, "first": shown([first]) | phases, "nothing_to_do": again}


def measure_looking(work: Path, count: int, runs: int) -> dict[str, Any]:
    """Measure runs with nothing to do for images beside as many unknown files, which are opened or not."""
    index = [common.clipsearch_command(), "index", "--json"]
    label = f"{count} pictures and {count} unknown files"
    with folder_of(work, label) as folder:
        draw(folder / "images", count, PER_FOLDER)
        for number in range(count):
            with open(f"{folder}/images/{number // PER_FOLDER:04}/{number:07}.dat", "wb", buffering=0) as file:
                file.write(b"no picture at all\n" * 10)
        first = watched(without_model(folder / "images"), folder)
        tell(f"{label}: first run without a model", [first])
        by_name = repeated([*index, "--by-name-only"], folder, runs, f"{label}: by name only, nothing to do")
        looking = repeated([*index, "--no-by-name-only"], folder, runs, f"{label}: looking, nothing to do")
        return {"count": count, "by_name_only": by_name, "looking": looking}


def measure_records(work: Path, count: int, runs: int) -> dict[str, Any]:
    """Every command on an index of empty files and random vectors."""
    clipsearch = common.clipsearch_command()
    commands = {
        "nothing_to_do": [clipsearch, "index", "--json"],
        "status": [clipsearch, "status", "--json"],
        "status_verify": [clipsearch, "status", "--verify", "--json"],
        "query": [clipsearch, "query", TEXT, "-k", str(K)],
    }
    with folder_of(work, f"{count} records") as folder:
        made = watched([sys.executable, __file__, "--make-records", str(count)], folder)
        tell(f"{count} records: made", [made])
        figures = {
            name: repeated(command, folder, runs, f"{count} records: {name.replace('_', ' ')}")
            for name, command in commands.items()
        }
        return {"count": count, **figures}


def measure_memory(work: Path, counts: Sequence[int], *, with_model: bool) -> dict[str, Any]:
    """Peaks of first runs over more and more pictures, and of runs with nothing to do; how fast they grow."""
    points = []
    for count in counts:
        label = f"{count} pictures, {'picturebook' if with_model else 'no model'}"
        with folder_of(work, label) as folder:
            draw(folder / "images", count, PER_FOLDER)
            index = [common.clipsearch_command(), "index"]
            model = [*index, "images", "--model", "picturebook", "--device", "cpu"]
            first = watched(model if with_model else without_model(folder / "images"), folder)
            tell(f"{label}: first run", [first])
            again = watched(index, folder)
            tell(f"{label}: nothing to do", [again])
            points.append({"count": count, "first": shown([first]), "nothing_to_do": shown([again])})
    slopes = {name: bytes_per_image(points, name) for name in ("first", "nothing_to_do")}
    for name, slope in slopes.items():
        if slope is not None:
            print(f"{name.replace('_', ' ')}: {slope} bytes more for each image", flush=True)
    return {"points": points, "bytes_per_image": slopes}


def bytes_per_image(points: Sequence[dict[str, Any]], name: str) -> float | None:
    """Slope of the peaks over the number of images, by least squares."""
    if len(points) < 2:
        return None
    peaks = [point[name]["peak_mb"] * _MEGABYTE for point in points]
    return round(statistics.linear_regression([point["count"] for point in points], peaks).slope, 1)


# -- pictures and records ----------------------------------------------------------------------------------------------


@contextmanager
def folder_of(work: Path, label: str) -> Iterator[Path]:
    """Make a folder for one case, and delete it afterwards, since the next one needs the space."""
    print(f"{label}: preparing ...", flush=True)
    folder = work / "case"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def draw(folder: Path, count: int, per_folder: int, ending: str = ".bmp") -> None:
    """Write bitmaps of noise, all different, with a number of them in each folder."""
    pixels = SIDE * SIDE * 3
    header = b"BM" + b"".join(
        number.to_bytes(size, "little")
        for number, size in (
            *((54 + pixels, 4), (0, 4), (54, 4)),  # length of the file, reserved, where the pixels begin
            *((40, 4), (SIDE, 4), (SIDE, 4), (1, 2), (24, 2)),  # a BITMAPINFOHEADER: width, height, planes, bits
            *((0, 4), (pixels, 4), (0, 4), (0, 4), (0, 4), (0, 4)),  # no compression, no palette
        )
    )
    for number in range(count):
        if number % per_folder == 0:
            inner = folder / f"{number // per_folder:04}"
            inner.mkdir(parents=True)
        noise = hashlib.shake_128(number.to_bytes(8, "little")).digest(pixels)
        with open(f"{inner}/{number:07}{ending}", "wb", buffering=0) as file:
            file.write(header + noise)


def make_records(count: int) -> None:
    """Make empty files in the current folder, and an index of them with random vectors of picturebook's size."""
    import numpy as np
    from bench_query import keep_text_tower

    from clipsearch.index.format import FOLDER
    from clipsearch.index.writing import Writer
    from clipsearch.models.disk.catalog import BUNDLED
    from clipsearch.models.disk.files import locate

    model = keep_text_tower(locate(BUNDLED).folder)
    random = np.random.default_rng(0)
    images = Path.cwd() / "images"
    with Writer.locked(Path(FOLDER)) as writer:
        writer.set_model(model)
        writer.set_root(os.fsencode(images), {})
        for start in range(0, count, _BLOCK):
            records = [empty_file(images, number) for number in range(start, min(start + _BLOCK, count))]
            vectors = random.standard_normal((len(records), model.dim), np.float32)
            writer.add(records, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
            writer.commit()


def empty_file(folder: Path, number: int) -> Record:
    """Make one, and the record of an image that it might be."""
    from clipsearch.index.format import Record

    path = f"{folder}/{number // PER_FOLDER:04}/{number:07}.jpg"
    if number % PER_FOLDER == 0:
        os.makedirs(os.path.dirname(path))
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    status = os.fstat(descriptor)
    os.close(descriptor)
    digest = hashlib.blake2b(number.to_bytes(8, "little"), digest_size=16).digest()
    return Record(os.fsencode(path), None, status.st_size, status.st_mtime_ns, digest, SIDE, SIDE)


# -- without a model ---------------------------------------------------------------------------------------------------


def without_model(pictures: Path) -> list[str]:
    """The command that runs `index_without_model` in the folder it is started in."""
    return [sys.executable, __file__, "--index-without-model", str(pictures)]


def index_without_model(pictures: Path) -> None:
    """Index a folder into the current one as `clipsearch index` does, and print how long its two halves took."""
    from clipsearch.index.format import FOLDER, ModelRecord
    from clipsearch.index.models import LoadedModel
    from clipsearch.index.updating import update

    encoder, clock = OwnPixels(), Clock()
    model = ModelRecord("own pixels", None, "0" * 32, SIDE * SIDE * 3)
    update(Path(FOLDER), [pictures], LoadedModel(encoder, model), progress=clock)
    read = time.perf_counter() - clock.compared
    print(json.dumps({"compare": round(clock.compared - clock.begun, 3), "read": round(read, 3)}))


class AsTheyAre:
    """Pixels of a picture, unchanged."""

    enough = None

    def __call__(self, image: Image.Image, _: object) -> npt.NDArray[np.uint8]:
        """(SIDE, SIDE, 3)."""
        import numpy as np

        return np.asarray(image)


class OwnPixels:
    """Replacement for a model: the vector of a picture is its pixels."""

    batch_size, calls = BATCH, 1

    def __init__(self) -> None:
        self.preprocessing = AsTheyAre()

    is_loading = False

    def divide_cores(self) -> None:
        """Do nothing, since nothing is computed."""

    @staticmethod
    def encode_images(pixels: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """(B, D) unit vectors."""
        import numpy as np

        vectors = np.stack(list(pixels)).reshape(len(pixels), -1).astype(np.float32) - 127.5
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


class Clock:
    """Progress of a run: remembers when it knew what to read."""

    def __init__(self) -> None:
        self.begun = self.compared = time.perf_counter()
        self.total = 0

    def start(self, total: int) -> None:
        """Note the time when all files are found and compared; `total` files are to be read."""
        self.compared, self.total = time.perf_counter(), total

    def searching(self, files: int) -> None:
        """Ignore the report."""

    def advance(self, files: int, unreadable: int = 0, known: int = 0) -> None:
        """Ignore the report."""


# -- seconds and memory ------------------------------------------------------------------------------------------------


def watched(command: Sequence[str], folder: Path) -> Cost:
    """Run a command in `folder`; what it took."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as talk:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=talk)
        with common.sampled(process.pid) as most:
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        talk.seek(0)
        if process.returncode:
            sys.exit(f"{command} ended with {process.returncode}:\n{talk.read().decode(errors='replace')}")
        if usage.ru_maxrss <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
            sys.exit("The benchmark itself is larger than what it measures: that peak would be its own.")
        peak = usage.ru_maxrss * _MAXRSS_BYTES / _MEGABYTE
        return Cost(seconds, peak, most["RssAnon"] / _MEGABYTE if most["RssAnon"] else None, out.read().decode())


def repeated(command: Sequence[str], folder: Path, runs: int, label: str) -> dict[str, Any]:
    """Run a command once to warm up, then `runs` times."""
    costs = [watched(command, folder) for _ in range(runs + 1)][1:]
    tell(label, costs)
    return shown(costs)


def shown(costs: Sequence[Cost]) -> dict[str, Any]:
    """Figures for the last line: seconds of all runs, the greatest of all peaks."""
    own = [cost.own_mb for cost in costs if cost.own_mb is not None]
    return {
        "seconds": common.summary([cost.seconds for cost in costs]),
        "peak_mb": round(max(cost.peak_mb for cost in costs), 1),
        "own_mb": round(max(own), 1) if own else None,
    }


def tell(label: str, costs: Sequence[Cost], more: str = "") -> None:
    """Lines for people."""
    figures = shown(costs)
    common.show(label, figures["seconds"], "s")
    own = f", {figures['own_mb']} MB without mapped files" if figures["own_mb"] else ""
    print(f"    peak {figures['peak_mb']} MB{own}{'; ' if more else ''}{more}", flush=True)


if __name__ == "__main__":
    main()
