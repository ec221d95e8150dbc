"""Benchmark of `index --regions`: what it finds, what it loses, and what it costs.

1. Small things: large pictures with one thing that is asked for among many, whose box is known, drawn by
   `python -m scripts.picturebook regions`. Recall with and without regions, by the size of the thing, and how often the
   box that comes back contains its middle.
2. No loss: the sample images, and held-out pictures drawn at 1,024 pixels with what the whole of them shows, by
   `clipsearch.evaluate` with and without regions.
3. Cost: `clipsearch index` of 12-megapixel JPEGs with a ViT-B/32 of random weights, without regions, with few, and with
   those of the layout. If each region were decoded by itself, n regions would cost 1 + n times as much.

Run it with:

    python scripts/bench_regions.py

It takes about twenty minutes, needs scripts/picturebook with its font, and uses the bundled model for 1 and 2.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bench_common as common
import bench_index
import numpy as np
from picturebook.caption import describe
from picturebook.data import scene_of
from picturebook.regions import SIZES, regions
from picturebook.render import render

import clipsearch
from clipsearch.images.regions import layout
from clipsearch.index.format import FOLDER
from clipsearch.index.reading import Store

SAMPLES = Path(__file__).resolve().parent.parent / "sample-images"
HELD_OUT, SIDE = 1000, 1024
LARGE = bench_index.CASES["jpeg-12mp"]
FEWER = """
from clipsearch.images import regions
whole = regions.layout
regions.layout = lambda *of: whole(*of)[:4]
from clipsearch.cli import main
main()
"""
"""`clipsearch` whose layout has only the first four regions of each picture, as smaller squares have."""


def main() -> None:
    """Measure all three parts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    common.add_options(parser, runs=3)
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="large pictures that were drawn before")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="held-out pictures (default %(default)s)")
    parser.add_argument("--only-cost", action="store_true", help="measure only what regions cost")
    parser.add_argument("--jpegs", type=int, default=16, help="of 12 megapixels, 0 for none (default %(default)s)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-regions-") as name:
        work = Path(name).resolve()
        common.isolate(work)
        result: dict[str, Any] = {}
        if not given.only_cost:
            large = given.pictures or work / "large"
            if not given.pictures:
                regions(large)
            result["small_things"] = small_things(large.absolute(), work)
            result["samples"] = compared("samples", SAMPLES, work)
            if given.held_out:
                draw_held_out(work / "held-out", given.held_out)
                result["held_out"] = compared("held-out", work / "held-out", work)
        if given.jpegs:
            result["cost"] = cost(work, given.jpegs, given.runs)
    common.finish(benchmark="regions", machine=common.machine(), **result)


def index(pictures: Path, folder: Path, *options: str) -> None:
    """Index `pictures` with regions, with the bundled model."""
    folder.mkdir()
    command = [common.clipsearch_command(), "index", str(pictures), "--model", "picturebook", "--index", FOLDER]
    common.run([*command, "--regions", *options], folder)


# -- small things --------------------------------------------------------------------------------------------


def small_things(pictures: Path, work: Path) -> dict[str, Any]:
    """Recall at 1, 5 and 10 by size of the thing, and the share of boxes with its middle."""
    index(pictures, work / "of-large")
    with (pictures / "captions.csv").open(encoding="utf-8", newline="") as file:
        asked = list(csv.DictReader(file))
    found: dict[str, Any] = {size: {} for size in SIZES}
    with clipsearch.open_index(work / "of-large") as opened:
        for way, whole in (("whole", True), ("regions", False)):
            answers = opened.search_many([one["caption"] for one in asked], None, whole=whole)
            for size in SIZES:
                of_size = [(one, hits) for one, hits in zip(asked, answers, strict=True) if one["size"] == size]
                own = [next(hit for hit in hits if hit.path.name == one["image"]) for one, hits in of_size]
                ranks = np.array([hit.rank for hit in own])
                figures: dict[str, float] = {f"recall@{k}": round(float((ranks <= k).mean()), 3) for k in (1, 5, 10)}
                if not whole:
                    right = [has_middle(hit.box, one) for hit, (one, _) in zip(own, of_size, strict=True)]
                    figures["box_has_middle"] = round(float(np.mean(right)), 3)
                    first = [right[at] for at in np.flatnonzero(ranks <= 5)]
                    figures["box_has_middle_in_first_5"] = round(float(np.mean(first)), 3) if first else 0.0
                found[size][way] = figures
                print(f"{size:10} {way:8} {figures}", flush=True)
    return found


def has_middle(box: Sequence[int] | None, thing: dict[str, str]) -> bool:
    """Whether the box of a hit contains the middle of a thing."""
    if box is None:
        return False
    x = (int(thing["left"]) + int(thing["right"])) / 2
    y = (int(thing["top"]) + int(thing["bottom"])) / 2
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


# -- no loss -------------------------------------------------------------------------------------------------


def draw_held_out(folder: Path, number: int) -> None:
    """Draw pictures of the test split that were not in the training, with captions, large enough for regions."""
    folder.mkdir()
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption"])
        for i in range(number):
            scene, rng = scene_of("test", i)
            render(scene, rng, SIDE).picture.save(folder / f"{i:04}.jpg", quality=95)
            writer.writerow([f"{i:04}.jpg", describe(scene, rng, 1.0)[0]])


def compared(name: str, pictures: Path, work: Path) -> dict[str, Any]:
    """Recall@1 of texts with regions and without, and how many pictures have some."""
    folder = work / f"of-{name}"
    index(pictures, folder)
    store = Store.open(folder / FOLDER)
    known, record = store.regions(), store.contents()
    store.close()
    figures: dict[str, Any] = {
        "images": record.images,
        "with_regions": len(np.unique(known.images)) if known else 0,
    }
    with clipsearch.load_model("picturebook", index=folder) as model:
        for way, whole in (("whole", True), ("regions", False)):
            found = clipsearch.evaluate(pictures / "captions.csv", model=model, whole=whole)
            figures[way] = round(found.directions[0].metrics["recall@1"], 4)
    print(f"{name}: {figures}", flush=True)
    return figures


# -- cost ----------------------------------------------------------------------------------------------------


def cost(work: Path, number: int, runs: int) -> dict[str, Any]:
    """Seconds and bytes of indexing large JPEGs from nothing, with no regions, few and all, in turns."""
    bench_index.draw(work / "jpegs", LARGE._replace(count=number))
    model = common.models(None, work, vit=True)[common.VIT_B_32]
    bare = [common.clipsearch_command(), "index"]
    few = [sys.executable, "-c", FEWER, "index"]
    rest = [str(work / "jpegs"), "--model", str(model), "--engine", "torch", "--index", FOLDER]
    ways = {"none": [*bare, *rest], "few": [*few, *rest, "--regions"], "all": [*bare, *rest, "--regions"]}
    times: dict[str, list[float]] = {way: [] for way in ways}
    folders = {way: work / f"cost-{way}" for way in ways}
    for number_of_run in range(runs + 1):  # the first one makes the model's towers and fills the page cache
        for way, command in ways.items():
            folder = bench_index.new_folder(folders[way])
            seconds = common.run(command, folder)[0]
            if number_of_run:
                times[way].append(seconds)
    out: dict[str, Any] = {"images": number, "regions_of_layout": len(layout(*LARGE.size, 224))}
    for way, folder in folders.items():
        store = Store.open(folder / FOLDER)
        contents = store.contents()
        store.close()
        out[way] = {
            "regions_per_image": (contents.regions or 0) // number,
            "seconds": common.summary(times[way]),
            "images_per_second": round(number / float(np.median(times[way])), 2),
            "times_none": common.summary(common.ratios(times[way], times["none"])),
            "bytes_per_image": sum(path.stat().st_size for path in (folder / FOLDER).glob("*.npy")) // number,
        }
        print(way, out[way], flush=True)
    return out


if __name__ == "__main__":
    main()
