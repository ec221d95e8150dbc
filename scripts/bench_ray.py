"""Benchmark of `clipsearch index --ray` against `index` alone, on the cores of this machine.

Whole processes, seen from outside, with a ViT-B/32 of random weights and random smooth pictures. From all pictures and
a quarter of them follows what each further picture takes, in which no start-up is left; start-up is what remains. A
cluster of one machine has all cores, and as many workers as there are eights of them; one of two machines, which are
processes here, has half of the cores on each. It is there only while its own runs are, so that the local runs have the
machine for themselves. Processor time is that of all processes, also of Ray's own. Ray runs on loopback. Needs the
extra `ray`; Linux only. Run it with:

    python scripts/bench_ray.py
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import bench_common as common
import bench_index

LOOPBACK = "127.0.0.1"
_SMALL_PART = 4
_SIZE = (640, 480)
_STORE_BYTES = 200 * 2**20


def main() -> None:
    """Measure, report."""
    parser = argparse.ArgumentParser(description="How fast workers of a Ray cluster embed.")
    parser.add_argument("--count", type=int, default=2000, help="number of pictures (default %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="measured runs, after one to warm up (default %(default)s)")
    parser.add_argument(
        "--machines", type=int, choices=(1, 2), default=2, help="up to how many machines (default %(default)s)"
    )
    parser.add_argument("--model", type=Path, help="a model's folder instead of a random ViT-B/32")
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="ray-") as name:
        work = Path(name).resolve()
        common.isolate(work)
        os.environ["RAY_TMPDIR"] = name
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # or Ray would not take loopback for an address
        os.environ["RAY_AUTH_MODE"] = "disabled"
        # Beside other work, workers would get less than the local run. Ray's names are not in capitals.
        os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
        model = given.model or work / common.VIT_B_32
        if given.model is None:
            common.models(None, work, vit=True)
        counts = Counts(given.count // _SMALL_PART, given.count)
        for folder, count in counts._asdict().items():
            bench_index.draw(work / folder, bench_index.Case(_SIZE, ".jpg", count, count))
        machines = {"local": [], "1 machine": [cores], "2 machines": [cores // 2] * 2}
        ways = {name: some for name, some in machines.items() if len(some) <= given.machines}
        found = measured(ways, work, model, counts, given.runs)
    points: dict[str, dict[str, Any]] = {}
    for way, rates in found.items():
        points[way] = {part: common.summary([getattr(one, part) for one in rates]) for part in Rate._fields}
        for part in ("seconds", "processor"):
            beside = [getattr(one, part) for one in found["local"]]
            times = common.ratios([getattr(one, part) for one in rates], beside)
            points[way][f"{part}_overhead_percent"] = common.summary([100 * (one - 1) for one in times])
            common.show(f"{way}: {part} for each image", points[way][part], "s", 4)
            common.show(f"{way}: more than local", points[way][f"{part}_overhead_percent"], "%", 1)
        common.show(f"{way}: start-up", points[way]["start_up"], "s", 1)
    common.finish(benchmark="ray", count=given.count, cores=cores, runs=given.runs, points=points)


class Counts(NamedTuple):
    """Numbers of pictures in the two folders."""

    few: int
    all: int


class Rate(NamedTuple):
    """What one way took in one round."""

    seconds: float
    """By the clock for each further image."""
    processor: float
    """Of the processor, all processes of Ray included, for each further image."""
    start_up: float
    """Seconds by the clock."""

    @classmethod
    def of(cls, counts: Counts, few: common.Took, all_: common.Took) -> Rate:
        """Compute it of two runs."""
        more = counts.all - counts.few
        seconds = (all_.clock - few.clock) / more
        return cls(seconds, (all_.processor - few.processor) / more, few.clock - counts.few * seconds)


@contextmanager
def cluster(cores: Sequence[int]) -> Iterator[str]:
    """Within: a cluster with a machine for each number of cores. Gives its address."""
    from ray.cluster_utils import Cluster

    one: dict[str, Any] = {"node_ip_address": LOOPBACK, "object_store_memory": _STORE_BYTES}
    head = {"num_cpus": cores[0], "include_dashboard": False, **one}
    machines = Cluster(initialize_head=True, head_node_args=head, connect=False)
    try:
        for number in cores[1:]:
            machines.add_node(num_cpus=number, **one)
        yield machines.address
    finally:
        machines.shutdown()


def measured(ways: dict[str, list[int]], work: Path, model: Path, counts: Counts, runs: int) -> dict[str, list[Rate]]:
    """Return what each way does, round by round. The first round, with few pictures, warms up."""
    clipsearch = common.clipsearch_command()

    def run(folder: str, address: str | None) -> common.Took:
        index = Path(tempfile.mkdtemp(dir=work)) / "index"
        command = [clipsearch, "index", folder, "--model", str(model), "--index", str(index), "--engine", "torch"]
        where = [] if address is None else ["--ray", address]
        one = common.took_with_others(common.Process([*command, *where, "--quiet"], work))
        print(f"{folder}: {one.clock:.1f} s, {one.processor:.1f} s of the processor", flush=True)
        return one

    found: dict[str, list[Rate]] = {way: [] for way in ways}
    for turn in range(runs + 1):
        for way, cores in ways.items():
            print(f"{way} ...", flush=True)
            with cluster(cores) if cores else nullcontext() as address:
                few = run("few", address)
                if turn:
                    found[way].append(Rate.of(counts, few, run("all", address)))
    return found


if __name__ == "__main__":
    main()
