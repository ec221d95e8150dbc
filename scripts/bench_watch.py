"""Benchmark of `clipsearch index --watch`: how soon pictures are in the index, and what it costs to wait for them.

One process watches a folder. Into it come single pictures, one after the other, and then a burst of many, during which
queries are run. Then it rests, and a run without it indexes as many pictures, for comparison. Everything lies in a
temporary folder. Linux only. Run it with:

    python scripts/bench_watch.py --model picturebook
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bench_common as common

_SINGLE = 7
"""Number of single pictures."""


def main() -> None:
    """Run the benchmark, and print a JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="picturebook")
    parser.add_argument("--before", type=int, default=1000, help="pictures that are in the index before")
    parser.add_argument("--burst", type=int, default=1000, help="pictures that come at once")
    parser.add_argument("--rest", type=float, default=75, help="seconds of rest at the end")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        figures = _measured(Path(name), arguments)
    print(json.dumps({"machine": common.machine()} | vars(arguments) | figures))


def _measured(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    from clipsearch.index.reading import Store

    pictures, burst = folder / "pictures", folder / "burst"
    _paint(pictures, arguments.before, 0)
    _paint(burst, arguments.burst + _SINGLE, 1)
    command = [sys.executable, "-m", "clipsearch", "index", "pictures", "--watch", "--json", "--model", arguments.model]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None

        def until(images: int) -> None:
            while json.loads(process.stdout.readline())["images"] < images:  # type: ignore[union-attr]
                pass

        images = arguments.before
        until(images)
        time.sleep(2)
        waiting = burst.iterdir()
        # 1. Single pictures.
        single = []
        for path in [next(waiting) for _ in range(_SINGLE)]:
            began = time.perf_counter()
            path.rename(pictures / path.name)
            images += 1
            until(images)
            single.append(time.perf_counter() - began)
        # 2. A burst, and queries meanwhile.
        began = time.perf_counter()
        for path in waiting:
            path.rename(pictures / path.name)
        copied = time.perf_counter() - began
        queries = 0
        store = Store.open(folder / ".clipsearch")
        while store.count() < images + arguments.burst:
            query = [sys.executable, "-m", "clipsearch", "query", "a red car", "-k", "1"]
            subprocess.run(query, cwd=folder, check=True, capture_output=True)
            queries += 1
        in_index = time.perf_counter() - began
        store.close()
        working = _memory(process.pid)
        # 3. Rest.
        before = _processor(process.pid)
        time.sleep(arguments.rest)
        idle = (_processor(process.pid) - before) / arguments.rest
        resting = _memory(process.pid)
        process.send_signal(signal.SIGTERM)
        code = process.wait()
    assert code == 128 + signal.SIGTERM
    # 4. As many pictures in a run of their own.
    _paint(folder / "others", arguments.burst, 2)
    began = time.perf_counter()
    command = [*command[:4], "others", "--index", "other", "--quiet", "--model", arguments.model]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    alone = time.perf_counter() - began
    return {
        "single_s": round(statistics.median(single), 2),
        "single_slowest_s": round(max(single), 2),
        "burst_moved_s": round(copied, 2),
        "burst_in_index_s": round(in_index, 2),
        "run_of_as_many_s": round(alone, 2),
        "queries_meanwhile": queries,
        "memory_at_work_mb": working,
        "memory_at_rest_mb": resting,
        "processor_at_rest": round(idle, 4),
    }


def _paint(folder: Path, number: int, seed: int) -> None:
    """Write pictures of 256 x 256 pixels, all different."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    random = np.random.default_rng(seed)
    for i in range(number):
        pixels = random.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).resize((256, 256)).save(folder / f"{seed}-{i}.jpg")


def _memory(process: int) -> int:
    """Memory of a process in 10**6 bytes, without mapped files."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return round(int(fields["RssAnon"].split()[0]) * 1024 / 1e6)


def _processor(process: int) -> float:
    """Processor time of a process in seconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
