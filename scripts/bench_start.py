"""Benchmark of whole commands with only a few new images, in which start-up takes most of the time.

A ViT-B/32 of random weights, and an index of 10,000 random vectors: `query --image` and `similar` with a new picture,
`index` with 1, 10 and 50 new pictures beside the known ones, `score` and `classify` of a few. `index` from nothing over
256 small JPEGs, 48 of 12 megapixels, 96 PNGs and 96 WebPs is raced against rclip with rclip's architecture (see
peer_rclip.py). A query in words is asked with the text tower in the system's page cache and with it dropped from there.
`--before` names the `clipsearch` of an older version, which is measured in turns with this one. Beside other work,
processor time tells more than the clock. Linux only. Run it with:

    python scripts/bench_start.py --rclip rclip/bin/rclip
    python scripts/bench_start.py --parts picture cold --runs 3 --before older/bin/clipsearch
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import bench_common as common
import bench_index
import bench_query
import numpy as np
import peer_rclip

TEXT, K = bench_query.TEXT, bench_query.K
FEW_ROWS = 1000
"""Number of rows of the index for queries by text."""
NEW = (1, 10, 50)
SCORED, CLASSIFIED = 3, 9
PARTS = ("picture", "small", "index", "cold", "nothing")
_PER_FOLDER = 1000


class Way(NamedTuple):
    """One command that does what is measured."""

    process: common.Process
    check: Callable[[str], object]
    """Ends the benchmark unless what was printed is what was wanted: a fast failure is no figure."""
    prepare: Callable[[], object] = lambda: None
    """Done each time before the clock starts."""

    def seconds(self) -> tuple[float, float]:
        """Measure seconds by the clock and of processor time, on which other work has little effect."""
        self.prepare()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds, printed = common.run(*self.process)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.check(printed)
        return seconds, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    def weight(self) -> common.Weight:
        """Measure its memory."""
        self.prepare()
        return common.weigh(self.process)


Cases = dict[str, dict[str, Way]]
"""By what is done, and by who does it: "clipsearch", "before", "rclip"."""


class Bench(NamedTuple):
    """Commands, models and folders of the benchmark."""

    work: Path
    clipsearch: dict[str, str]
    """Commands: this version, and an older one."""
    model: Path
    peer: peer_rclip.Rclip | None
    runs: int

    def ours(self, folder: Path, *arguments: str | Path, **more: Callable[..., object]) -> dict[str, Way]:
        """Return the same command for each version; `more` are fields of `Way`."""
        given = [str(argument) for argument in arguments]
        return {who: Way(common.Process([command, *given], folder), **more) for who, command in self.clipsearch.items()}


def main() -> None:
    """Prepare models, indexes and pictures; measure; report."""
    parser = argparse.ArgumentParser(description="Seconds and memory of commands with few new images.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (all)")
    parser.add_argument("--rows", type=int, default=10_000, help="images that the index knows (default %(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="measured runs, after one to warm up (default %(default)s)")
    parser.add_argument("--before", metavar="COMMAND", help="the clipsearch of an older version, to compare with")
    peer_rclip.add_options(parser)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-start-") as name:
        work = Path(name).resolve()
        common.isolate(work)
        clipsearch = {"clipsearch": common.clipsearch_command()}
        if given.before:
            clipsearch["before"] = shutil.which(given.before) or sys.exit(f"There is no command {given.before}.")
        model = common.models(None, work, vit=True)[common.VIT_B_32]
        raced = {"picture", "nothing"} & set(given.parts)
        bench = Bench(work, clipsearch, model, peer_rclip.find(given, work) if raced else None, given.runs)
        figures = {part: measure(part, bench, given.rows) for part in given.parts}
    common.finish(
        benchmark="start",
        unit="seconds; 10**6 bytes",
        rows=given.rows,
        runs=given.runs,
        rclip=bench.peer.about() if bench.peer else None,
        parts=figures,
    )


def measure(part: str, bench: Bench, rows: int) -> dict[str, Any]:
    """Measure all cases of a part in turns, and their memory."""
    print(f"== {part}: preparing ...", flush=True)
    folder = bench.work / part
    if part == "nothing":
        folder.mkdir()
        kinds = [timed(nothing(bench, kind), bench) for kind in bench_index.CASES]
        return {case: figures for kind in kinds for case, figures in kind.items()}
    known = make_known(folder, bench.model, FEW_ROWS if part == "cold" else rows)
    new = folder / "new"
    bench_index.draw(new, bench_index.CASES["jpeg"]._replace(count=max(NEW), drawn=max(NEW)))
    figures = timed({"picture": picture, "small": small, "index": index, "cold": cold}[part](bench, known, new), bench)
    shutil.rmtree(folder)
    return figures


def timed(cases: Cases, bench: Bench) -> dict[str, Any]:
    """Seconds of all cases and ways in turns, how they compare, and memory."""
    spent: dict[Any, list[float]] = {}

    def clock(key: Any, way: Way) -> float:  # noqa: ANN401  (a key)
        seconds, processor = way.seconds()
        spent.setdefault(key, []).append(processor)
        return seconds

    turns: dict[Any, Callable[[], float]] = {
        (case, who): partial(clock, (case, who), way) for case, ways in cases.items() for who, way in ways.items()
    }
    times: dict[Any, list[float]] = common.interleaved(turns, bench.runs)
    figures: dict[str, Any] = {}
    for case, ways in cases.items():
        found = {who: times[case, who] for who in ways}
        figures[case] = {
            "seconds": {who: common.summary(values) for who, values in found.items()},
            "processor_seconds": {who: common.summary(spent[case, who][1:]) for who in ways},
            "ratios": {
                f"{who} / clipsearch": common.summary(common.ratios(found[who], found["clipsearch"]))
                for who in ways
                if who != "clipsearch"
            },
        }
        for who in ways:
            common.show(f"{case}, {who}", figures[case]["seconds"][who], "s")
            common.show("    of processor time", figures[case]["processor_seconds"][who], "s")
        for name, figure in figures[case]["ratios"].items():
            common.show(f"    {name}", figure, "times", 2)
        weights = {who: way.weight() for who, way in ways.items()}
        for who, weight in weights.items():
            common.show_weight(f"{case}, {who}", weight)
        figures[case]["memory"] = {who: weight.shown() for who, weight in weights.items()}
    return figures


# -- the parts -------------------------------------------------------------------------------------------------------


def picture(bench: Bench, known: Path, new: Path) -> Cases:
    """Queries by a picture that the index does not know."""
    image = min(new.iterdir())
    ways = {
        "query --image": bench.ours(known, "query", "--image", image, "-k", str(K), check=prints(K)),
        "similar": bench.ours(known, "similar", image, "-k", str(K), check=prints(K)),
    }
    if bench.peer:
        data, images = bench.peer.data("picture"), bench.work / "rclip-images"
        bench.peer.fill(data, images, sum(1 for _ in known.glob("images/*/*")))
        rclip = Way(bench.peer.query(data, images, str(image), K), check=prints(K + 1))
        ways = {case: {**ours, "rclip": rclip} for case, ours in ways.items()}
    return ways


def small(bench: Bench, known: Path, new: Path) -> Cases:
    """A few new pictures with a few texts, in the folder of an index that knows none of them."""
    images = sorted(new.iterdir())
    texts = [part for text in ("a dog", "a cat is sleeping", "two red boats") for part in ("--text", text)]
    labels = ("--label", "dog", "--label", "cat")
    return {
        f"score, {SCORED} x 3": bench.ours(known, "score", *images[:SCORED], *texts, check=prints(SCORED)),
        f"classify, {CLASSIFIED}": bench.ours(
            known, "classify", *images[:CLASSIFIED], *labels, check=prints(CLASSIFIED)
        ),
    }


def index(bench: Bench, known: Path, new: Path) -> Cases:
    """New pictures among many that the index knows; each run finds the index as it was before."""
    images = sorted(new.iterdir())
    kept = known.with_name("index-before")
    shutil.copytree(known / ".clipsearch", kept)

    def prepare(count: int) -> None:
        for folder in (known / ".clipsearch", known / "images" / "new"):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(kept, known / ".clipsearch")
        (known / "images" / "new").mkdir()
        for image in images[:count]:
            shutil.copy(image, known / "images" / "new")

    return {
        f"index, {count} new": bench.ours(
            known, "index", "--json", check=embedded(count), prepare=partial(prepare, count)
        )
        for count in NEW
    }


def cold(bench: Bench, known: Path, _: Path) -> Cases:
    """A query in words, with the files of the text tower in the system's page cache, and without."""
    command = ("query", TEXT, "-k", str(K))
    towers = Path(os.environ["CLIPSEARCH_CACHE"])
    return {
        "query, page cache warm": bench.ours(known, *command, check=prints(K)),
        "query, text tower dropped": bench.ours(known, *command, check=prints(K), prepare=partial(drop, towers)),
    }


def nothing(bench: Bench, kind: str) -> Cases:
    """`index` of one kind of pictures from nothing, with rclip's architecture on both sides."""
    images, ours, same = (
        bench.work / "nothing" / kind,
        bench.work / "nothing" / "ours",
        bench.work / bench_index.PEERS_OWN,
    )
    bench_index.draw(images, bench_index.CASES[kind])
    count = bench_index.CASES[kind].count
    if not same.exists():
        common.make_vit_b_32(same, bench.model, peer_rclip.SIDE)
    ways = bench.ours(
        ours,
        *("index", images, "--model", same, "--json"),
        check=embedded(count),
        prepare=partial(bench_index.new_folder, ours),
    )
    if bench.peer:
        data = bench.peer.data("nothing")
        ways["rclip"] = Way(
            bench.peer.index(data, images, TEXT),
            check=lambda _: bench_index.check_count("rclip", peer_rclip.indexed(data), images),
            prepare=partial(bench.peer.data, "nothing"),
        )
    return {f"index from nothing, {kind}": ways}


# -- what they need --------------------------------------------------------------------------------------------------


def prints(lines: int) -> Callable[[str], None]:
    """Make a check for a number of lines."""

    def check(printed: str) -> None:
        if len(printed.splitlines()) < lines:
            sys.exit(f"There should have been {lines} lines, not {printed!r}.")

    return check


def embedded(images: int) -> Callable[[str], None]:
    """Make a check of `index --json` for a number of embedded images."""

    def check(printed: str) -> None:
        if json.loads(printed)["embedded"] != images:
            sys.exit(f"{images} images should have been embedded: {printed}")

    return check


def make_known(folder: Path, model: Path, rows: int) -> Path:
    """Make a folder with a number of empty files, named like images, and an index with a random vector for each."""
    from clipsearch.index.format import FOLDER, Record
    from clipsearch.index.writing import Writer

    known = folder / "known"
    maker = bench_query.keep_text_tower(model)
    records = []
    for number in range(rows):
        path = known / "images" / f"{number // _PER_FOLDER:04}" / f"{number:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        found = path.stat()
        digest = number.to_bytes(16, "little")
        record = Record(os.fsencode(path), None, 0, found.st_mtime_ns, digest, 500, 375)
        records.append(record._replace(ctime_ns=found.st_ctime_ns, inode=found.st_ino))
    vectors = np.random.default_rng(0).standard_normal((rows, maker.dim), np.float32)
    with Writer.locked(known / FOLDER) as writer:
        writer.set_model(maker)
        writer.set_root(os.fsencode(known / "images"), {})
        writer.add(records, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        writer.commit()
    return known


def drop(folder: Path) -> None:
    """Have the system forget what it keeps in memory of the text towers below a folder; the disk has them anew."""
    for path in folder.glob("text-towers-*/**/*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


if __name__ == "__main__":
    main()
