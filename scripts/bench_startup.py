"""Benchmark of the time and memory of clipsearch's short commands, as whole processes.

The interpreter and NumPy alone, help, version, shell completion, and `clipsearch index` with nothing to do; help of
rclip if it is installed (see peer_rclip.py). Memory comes from runs of its own, off the clock. Heavy packages that
help, a query and such a run import are listed: there should be none. Run it with:

    python scripts/bench_startup.py
    python scripts/bench_startup.py --files 1000 100000
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import bench_common as common
import bench_scale
import peer_rclip

TEXT, K = "a dog is sleeping", 3
_MOST_WITH_MODEL = 2000
"""More pictures than these get their own pixels as vectors: a run with nothing to do loads no model anyway."""


def main() -> None:
    """Prepare indexes, measure, report."""
    parser = argparse.ArgumentParser(description="Seconds and memory of clipsearch's short commands.")
    parser.add_argument(
        "--files", type=int, nargs="+", default=[1000], help="pictures in the folder with nothing to do (default 1000)"
    )
    parser.add_argument(
        "--runs", type=int, default=10, help="measured runs, after one to warm up (default %(default)s)"
    )
    peer_rclip.add_options(parser)
    given = parser.parse_args()
    rclip = peer_rclip.command_of(given)
    with tempfile.TemporaryDirectory(prefix="bench-startup-") as name:
        work = Path(name).resolve()
        common.isolate(work)
        small = indexed_folder(work / "small", 4 * K)
        processes = short_commands(small, rclip)
        for files in given.files:
            index = [common.clipsearch_command(), "index", "--json"]
            processes[f"clipsearch index, {files} files, nothing to do"] = common.Process(
                index, indexed_folder(work / f"files-{files}", files)
            )
        parts = {"processes": measure(processes, given.runs), "heavy_imports": imports(small)}
    common.finish(
        benchmark="startup",
        unit="seconds; 10**6 bytes",
        runs=given.runs,
        rclip={"version": peer_rclip.version(rclip)} if rclip else None,
        **parts,
    )


def short_commands(folder: Path, rclip: str | None) -> dict[str, common.Process]:
    """Return the commands that can be measured in any folder."""
    clipsearch, python = common.clipsearch_command(), sys.executable
    typed = {"_CLIPSEARCH_COMPLETE": "complete_bash", "COMP_WORDS": "clipsearch in", "COMP_CWORD": "1"}
    processes = {
        "python -c pass": common.Process([python, "-c", "pass"], folder),
        'python -c "import numpy"': common.Process([python, "-c", "import numpy"], folder),
        "clipsearch --help": common.Process([clipsearch, "--help"], folder),
        "clipsearch --version": common.Process([clipsearch, "--version"], folder),
        "clipsearch in<TAB>": common.Process([clipsearch], folder, typed),
        "clipsearch query": common.Process([clipsearch, "query", TEXT, "-k", str(K)], folder),
    }
    if rclip:
        processes["rclip --help"] = common.Process([rclip, "--help"], folder)
    # A command that says nothing, or not enough, is no figure.
    hits = common.run(*processes["clipsearch query"])[1].splitlines()
    completed = common.run(*processes["clipsearch in<TAB>"])[1].split()
    if len(hits) != K or completed != ["index"]:
        sys.exit(f"{K} hits should have been found, and 'index' completed, not {hits} and {completed}.")
    return processes


def indexed_folder(folder: Path, files: int) -> Path:
    """Make a folder with a number of small images and their index."""
    print(f"{files} files: preparing ...", flush=True)
    pictures = folder / "images"
    bench_scale.draw(pictures, files, bench_scale.PER_FOLDER)
    ours = [common.clipsearch_command(), "index", "images", "--model", "picturebook", "--device", "cpu"]
    common.run(ours if files <= _MOST_WITH_MODEL else bench_scale.without_model(pictures), folder)
    return folder


def measure(processes: dict[str, common.Process], runs: int) -> dict[str, Any]:
    """Seconds of all, interleaved, and memory."""
    times = common.interleaved({name: partial(common.seconds, process) for name, process in processes.items()}, runs)
    figures: dict[str, Any] = {}
    for name, values in times.items():
        weight = common.weigh(processes[name])
        figures[name] = {
            "seconds": common.summary(values),
            "peak_mb": weight.shown()["peak_mb"],
            "own_mb": weight.shown()["own_mb"],
        }
        common.show(name, figures[name]["seconds"], "s")
        common.show_weight(name, weight)
    return figures


def imports(folder: Path) -> dict[str, list[str]]:
    """Which heavy packages each command imports."""
    commands = {"--help": ["--help"], "query": ["query", TEXT], "index, nothing to do": ["index"]}
    found = {name: common.heavy_imports(arguments, folder) for name, arguments in commands.items()}
    for name, packages in found.items():
        print(f"heavy imports of {name}: {', '.join(packages) or 'none'}", flush=True)
    return found


if __name__ == "__main__":
    main()
