"""Benchmark of `clipsearch index` of pictures in archives, beside the same pictures as files.

The pictures are random but smooth JPEGs of 256 x 256, as img2dataset writes them, each with a caption beside it.
Measured are: finding and reading all of them in this process, without decoding and without a model; the whole command
into a new index; and the whole command again, when nothing has changed. What is read is in the system's caches. Files
and archives take turns; processor time of whole commands is that of the process. Linux and macOS only. Run it with:

    python scripts/bench_archives.py
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import bench_common as common
import numpy as np
from PIL import Image

from clipsearch.images.finding import find_images
from clipsearch.index.pipeline import read_images

SIDE = 256
PER_SHARD = 1000
CAPTION = b"a picture that nobody has seen"


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="pictures")
    common.add_options(parser, runs=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clipsearch-bench-") as name:
        work = Path(name)
        common.isolate(work)
        places = make(work, given.count)
        ways: dict[str, Callable[[str], common.Took]] = {
            "find and read": lambda kind: read_all(places[kind]),
            "index": lambda kind: index(work, kind, anew=True),
            "index again": lambda kind: index(work, kind, anew=False),
        }
        result = {
            label: measure(label, {kind: partial(way, kind) for kind in places}, given.runs)
            for label, way in ways.items()
        }
    common.finish(benchmark="archives", count=given.count, runs=given.runs, **result)


def make(work: Path, count: int) -> dict[str, Path]:
    """Write the same pictures as files, as tar archives and as zip archives of `PER_SHARD` pictures each."""
    places = {kind: work / kind for kind in ("files", "tar", "zip")}
    members = list(pictures(count))
    for shard in range(0, count, PER_SHARD):
        name = f"{shard // PER_SHARD:05}"
        for place in (places["files"] / name, places["tar"], places["zip"]):
            place.mkdir(parents=True, exist_ok=True)
        with (
            tarfile.open(places["tar"] / f"{name}.tar", "w") as tar,
            zipfile.ZipFile(places["zip"] / f"{name}.zip", "w") as packed,
        ):
            for key, content in members[shard : shard + PER_SHARD]:
                for file, data in ((f"{key}.jpg", content), (f"{key}.txt", CAPTION)):
                    (places["files"] / name / file).write_bytes(data)
                    info = tarfile.TarInfo(file)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                    packed.writestr(file, data)
    return places


def pictures(count: int) -> Iterator[tuple[str, bytes]]:
    """Yield key and content of pictures, the same in every run."""
    chance = np.random.default_rng(0)
    for number in range(count):
        cells = Image.fromarray(chance.integers(0, 256, (24, 24, 3), np.uint8))
        out = io.BytesIO()
        cells.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(out, "JPEG", quality=95)
        yield f"{number:09}", out.getvalue()


def read_all(place: Path) -> common.Took:
    """Find and read all pictures in a folder or in archives."""
    started, used = time.perf_counter(), time.process_time()
    for root in [place] if place.name == "files" else sorted(place.iterdir()):
        with closing(read_images(find_images(os.fsencode(root)))) as items:
            for item in items:
                assert item.content, item.record.error
    return common.Took(time.perf_counter() - started, time.process_time() - used)


def index(work: Path, kind: str, *, anew: bool) -> common.Took:
    """Index one kind, anew or again."""
    if anew:
        shutil.rmtree(work / f"index-{kind}", ignore_errors=True)
    arguments = ["index", kind, "--archives", "--model", "picturebook", "--index", f"index-{kind}", "--quiet"]
    return common.took(common.Process([common.clipsearch_command(), *arguments], work))


def measure(label: str, cases: dict[str, Callable[[], common.Took]], runs: int) -> dict[str, Any]:
    """Measure cases in turns; return the seconds of each, and how many times those of files."""
    found = common.beside(common.interleaved(cases, runs), "files")
    for kind, figures in found.items():
        common.show(f"{label}, {kind}", figures["processor"], "s of processor time")
    return found


if __name__ == "__main__":
    main()
