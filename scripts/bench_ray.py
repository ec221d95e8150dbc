"""Benchmark of `clipsearch index --ray` against `index` alone, on the cores of this machine.

Whole processes, seen from outside, with a ViT-B/32 of random weights and random smooth pictures. From all pictures and
a quarter of them follows the marginal rate, in which no start-up is left; start-up is what remains. A cluster of one
machine has all cores, and as many workers as there are eights of them; one of two machines, which are processes here,
has half of the cores on each. Ray runs on loopback. Needs the extra `ray`; Linux only. Run it with:

    python scripts/bench_ray.py
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

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
        counts = {"few": given.count // _SMALL_PART, "all": given.count}
        for folder, count in counts.items():
            bench_index.draw(work / folder, bench_index.Case(_SIZE, ".jpg", count, count))
        with cluster([cores]) as one, cluster([cores // 2] * 2) as two:
            ways = {"local": [], "ray, 1 machine": ["--ray", one], "ray, 2 machines": ["--ray", two]}
            points = measured(ways, work, model, counts, given.runs)
    local = points["local"]["images_per_second"]["median"]
    for way, point in points.items():
        common.show(f"{way}: marginal rate", point["images_per_second"], "images/s", 2)
        common.show(f"{way}: start-up", point["start_up"], "s", 1)
        point["overhead_percent"] = round(100 * (local / point["images_per_second"]["median"] - 1), 1)
    common.finish(benchmark="ray", count=given.count, cores=cores, runs=given.runs, points=points)


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


def measured(
    ways: dict[str, list[str]], work: Path, model: Path, counts: dict[str, int], runs: int
) -> dict[str, dict[str, Any]]:
    """Return the marginal rate and the seconds of start-up of `index` with the options of each way."""

    def run(options: Sequence[str], folder: str) -> float:
        index = Path(tempfile.mkdtemp(dir=work)) / "index"
        command = [common.clipsearch_command(), "index", folder, "--model", str(model), "--index", str(index)]
        seconds, _ = common.run([*command, "--engine", "torch", *options, "--quiet"], work)
        print(f"{options[-1:]} {folder}: {seconds:.1f} s", flush=True)
        return seconds

    pairs = [(way, folder) for way in ways for folder in counts]
    cases: dict[str, Callable[[], float]] = {"/".join(pair): partial(run, ways[pair[0]], pair[1]) for pair in pairs}
    times = common.interleaved(cases, runs)
    found: dict[str, dict[str, Any]] = {}
    for way in ways:
        took = list(zip(times[f"{way}/few"], times[f"{way}/all"], strict=True))
        rates = [(counts["all"] - counts["few"]) / max(1e-3, all_ - few) for few, all_ in took]
        starts = [few - counts["few"] / rate for (few, _), rate in zip(took, rates, strict=True)]
        found[way] = {"images_per_second": common.summary(rates), "start_up": common.summary(starts)}
    return found


if __name__ == "__main__":
    main()
