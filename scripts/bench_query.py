"""Benchmark of a cold `clipsearch query` beside the same query to rclip and in a notebook.

Whole processes, timed from outside: interpreter, imports, model, ranking, output. Cold means a new process; files
are in the system's page cache. Indexes are made of random unit vectors, without any image. The notebook is also what
a query costs that loads the whole model through transformers; clipsearch computes the text tower with NumPy, and the
output says if it ever does not. Memory comes from runs of its own, off the clock. rclip is measured if it is
installed (see peer_rclip.py), against the model of its size. A ViT-B/32 whose text tower has another activation than
CLIP's shows what it costs when clipsearch itself has to load the whole model. Run it with:

    python scripts/bench_query.py --rows 1000 100000 1000000

A million rows take 13 GB in the system's temporary folder (TMPDIR names another), and 9 GB of memory for rclip. With
`--regions 4`, each image also has four regions in an index of its own, which is asked with and without `--whole`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bench_common as common
import numpy as np
import numpy.typing as npt
import peer_rclip

if TYPE_CHECKING:
    from clipsearch.index.format import ModelRecord, Record

TEXT, K = "a dog is sleeping", 3
REGIONS, WHOLE = "clipsearch, regions", "clipsearch --whole, regions"
UNLIKE = f"{common.VIT_B_32}-unlike-clip"
_BLOCK_ROWS = 65_536
_SIDE = 224
"""Of the model's input, in pixels."""
_MILLION = 1_000_000
_YEAR_2020 = 1_577_836_800
"""Time in seconds since 1970."""
NOTEBOOK = """\
import json, sys
import numpy as np
import torch
from transformers import CLIPModel, CLIPProcessor

folder, text, k = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = CLIPModel.from_pretrained(folder).eval()
processor = CLIPProcessor.from_pretrained(folder)
with torch.no_grad():
    inputs = processor(text=[text], return_tensors="pt", padding=True)
    vector = model.get_text_features(**inputs).pooler_output[0].numpy()
scores = np.load("vectors.npy") @ (vector / np.linalg.norm(vector))
paths = json.load(open("paths.json"))
for row in np.argsort(-scores)[:k]:
    print(scores[row], paths[row], sep="\\t")
"""
"""Program of a notebook that has saved its vectors before."""

Ways = dict[str, common.Process]
"""The same question on one index, asked of "clipsearch", "rclip" and "notebook"."""


def main() -> None:
    """Prepare models and indexes, measure, report."""
    parser = argparse.ArgumentParser(description="Cold query times of clipsearch, of rclip and of a notebook.")
    common.add_options(parser, runs=10)
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[1000, 100_000], help="images in the index (default 1000 100000)"
    )
    parser.add_argument("--no-notebook", action="store_true", help="leave the notebook out")
    parser.add_argument("--regions", type=int, metavar="N", help="ask also an index with N regions of each image")
    peer_rclip.add_options(parser)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-query-") as name:
        work = Path(name).resolve()
        common.isolate(work)
        models = common.models(given.model, work, vit=not given.no_vit)
        if common.VIT_B_32 in models:
            models[UNLIKE] = make_unlike(models[common.VIT_B_32], work / UNLIKE)
        peer = peer_rclip.find(given, work)
        pairs = prepare(models, given.rows, work, peer, notebook=not given.no_notebook, regions=given.regions)
        parts = measure(pairs, given.runs, work)
    common.finish(
        benchmark="query",
        unit="seconds; 10**6 bytes; seconds more for each 10**6 images",
        runs=given.runs,
        text=TEXT,
        k=K,
        rclip=peer.about() if peer else None,
        **parts,
    )


def prepare(
    models: dict[str, Path],
    sizes: Sequence[int],
    work: Path,
    peer: peer_rclip.Rclip | None,
    *,
    notebook: bool,
    regions: int | None,
) -> dict[tuple[str, int], Ways]:
    """Indexes, and on each the same question in all ways, checked."""
    (work / "notebook.py").write_text(NOTEBOOK, "utf-8")
    pairs: dict[tuple[str, int], Ways] = {}
    for model, model_folder in models.items():
        record = keep_text_tower(model_folder)
        for rows in sizes[:1] if model == UNLIKE else sizes:
            print(f"{model}, {rows} rows: preparing ...", flush=True)
            folder = work / f"{model}-{rows}"
            beside = notebook and model != UNLIKE
            make_index(folder, record, rows, notebook=beside)
            query = [common.clipsearch_command(), "query", TEXT, "-k", str(K)]
            ways = {"clipsearch": common.Process(query, folder)}
            if beside:
                command = [sys.executable, str(work / "notebook.py"), str(model_folder), TEXT, str(K)]
                ways["notebook"] = common.Process(command, folder)
            check_answers(ways)
            # rclip's text tower is ViT-B/32's, so that is what it is compared with.
            if peer and model == common.VIT_B_32:
                data = peer.data(str(rows))
                peer.fill(data, folder / "images", rows)
                ways["rclip"] = peer.query(data, folder / "images", TEXT, K)
                peer_rclip.check_query(ways["rclip"], K)
            if regions and model != UNLIKE:
                parted = work / f"{model}-{rows}-regions"
                make_index(parted, record, rows, notebook=False, regions=regions)
                ways[REGIONS] = common.Process(query, parted)
                ways[WHOLE] = common.Process([*query, "--whole"], parted)
                check_answers({way: ways[way] for way in ("clipsearch", WHOLE)})
            pairs[model, rows] = ways
    return pairs


def measure(pairs: dict[tuple[str, int], Ways], runs: int, work: Path) -> dict[str, Any]:
    """Time all questions and the floors below them, interleaved; then weigh them; the parts of the last line."""
    clipsearch, python = common.clipsearch_command(), sys.executable
    floors = {
        "python -c pass": common.Process([python, "-c", "pass"], work),
        'python -c "import numpy"': common.Process([python, "-c", "import numpy"], work),
        "clipsearch --help": common.Process([clipsearch, "--help"], work),
    }
    # 1. The clock.
    asked = {(way, *pair): process for pair, ways in pairs.items() for way, process in ways.items()}
    cases: dict[Any, Callable[[], float]] = {
        name: partial(common.seconds, process) for name, process in (floors | asked).items()
    }
    times = common.interleaved(cases, runs)
    # 2. The figures.
    processes = {name: common.summary(times[name]) for name in floors}
    for name, figure in processes.items():
        common.show(name, figure, "s")
    queries = [
        figures_of(model, rows, ways, {way: times[way, model, rows] for way in ways})
        for (model, rows), ways in pairs.items()
    ]
    return {"processes": processes, "queries": queries, "seconds_per_million": growth(queries)}


def figures_of(model: str, rows: int, ways: Ways, times: dict[str, list[float]]) -> dict[str, Any]:
    """Everything about one index: seconds, ratios round by round, memory, and which text tower ran."""
    label = f"{model}, {rows} rows"
    figures: dict[str, Any] = {"model": model, "rows": rows}
    for way, values in times.items():
        figures[way] = common.summary(values)
        common.show(f"{way}, {label}", figures[way], "s")
    for way in sorted(ways.keys() - {"clipsearch"}):
        ratio = common.summary(common.ratios(times["clipsearch"], times[way]))
        figures[f"clipsearch / {way}"] = ratio
        common.show(f"clipsearch / {way}, {label}", ratio, "")
    figures["memory"] = {}
    for way, process in ways.items():
        weight = common.weigh(process)
        common.show_weight(f"{way}, {label}", weight)
        figures["memory"][way] = weight.shown()
    ours = ways["clipsearch"]
    heavy = common.heavy_imports(ours.command[1:], ours.folder)
    figures["text_path"] = f"imports {', '.join(heavy)}" if heavy else "NumPy tower"
    print(f"text path, {label}: {figures['text_path']}", flush=True)
    return figures


def growth(queries: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Estimate for each model and way the seconds for a million more images, by least squares over the medians."""
    found: dict[str, dict[str, float]] = {}
    for model in dict.fromkeys(query["model"] for query in queries):
        for way in ("clipsearch", "rclip", "notebook"):
            points = [
                (query["rows"], query[way]["median"]) for query in queries if query["model"] == model and way in query
            ]
            slope = common.slope(*zip(*points, strict=True)) if points else None
            if slope is not None:
                found.setdefault(model, {})[way] = round(slope * _MILLION, 4)
                print(f"{way}, {model}: {slope * _MILLION:.3f} s more for each million images", flush=True)
    return found


def keep_text_tower(model_folder: Path) -> ModelRecord:
    """Leave a model's text tower in the cache, as `clipsearch index` does; what its index says of the model."""
    from clipsearch.index.format import ModelRecord
    from clipsearch.models.disk.files import locate
    from clipsearch.models.in_torch.encoder import Encoder

    encoder = Encoder(locate(str(model_folder)), "cpu")
    encoder.save_text_tower()
    return ModelRecord(encoder.name, encoder.revision, encoder.fingerprint, encoder.dim)


def make_unlike(model: Path, folder: Path) -> Path:
    """Copy the model with another activation in its text tower, which only transformers computes."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((model / "config.json").read_text("utf-8"))
    config["text_config"]["hidden_act"] = "gelu_new"
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


def make_index(folder: Path, model: ModelRecord, rows: int, *, notebook: bool, regions: int = 0) -> None:
    """Write an index of random vectors into `folder`, and the same vectors for a notebook, block by block.

    Each image gets as many `regions`, of random vectors as well.
    """
    from clipsearch.images.codecs.box import Box
    from clipsearch.index.format import FOLDER
    from clipsearch.index.region_files import ImageRegions
    from clipsearch.index.writing import Writer

    # 1. Ours.
    with Writer.locked(folder / FOLDER) as writer:
        writer.set_model(model)
        writer.set_root(os.fsencode(folder / "images"), {})
        if regions:
            writer.begin_regions(_SIDE)
        boxes = [Box(300 * number, 0, 300 * number + 900, 900) for number in range(regions)]
        of_regions = blocks(rows * regions, model.dim, seed=1)
        waiting = np.empty((0, model.dim), np.float32)
        for start, block in blocks(rows, model.dim):
            while len(waiting) < len(block) * regions:
                waiting = np.concatenate([waiting, next(of_regions)[1]])
            parts = [ImageRegions(boxes, waiting[at * regions : (at + 1) * regions]) for at in range(len(block))]
            waiting = waiting[len(block) * regions :]
            records = [record_of(folder, row) for row in range(start, start + len(block))]
            writer.add(records, block, parts if regions else ())
        writer.commit()
    # 2. The notebook's.
    if notebook:
        vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (rows, model.dim))
        for start, block in blocks(rows, model.dim):
            vectors[start : start + len(block)] = block
        vectors.flush()
        (folder / "paths.json").write_text(json.dumps([path_of(row) for row in range(rows)]), "utf-8")


def record_of(folder: Path, row: int) -> Record:
    """An image that could be: every third is upright, and one a minute was taken since 2020."""
    from clipsearch.index.format import Record

    width, height = (3000, 4000) if row % 3 == 0 else (4000, 3000)
    taken = (_YEAR_2020 + 60 * row) * 10**9
    return Record(os.fsencode(folder / path_of(row)), None, 100_000, taken, row.to_bytes(16, "little"), width, height)


def blocks(rows: int, dim: int, seed: int = 0) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Number of the first row and unit vectors of each block, always the same.

    They are rounded to float16 for everybody, so that all must find the same.
    """
    random = np.random.default_rng(seed)
    for start in range(0, rows, _BLOCK_ROWS):
        vectors = random.standard_normal((min(_BLOCK_ROWS, rows - start), dim), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        yield start, vectors.astype(np.float16).astype(np.float32)


def path_of(row: int) -> str:
    """Return the path of the image of a row."""
    return f"images/{row // 1000:04}/{row:07}.jpg"


def check_answers(ways: Ways) -> None:
    """Exit unless all name the same `K` images: a fast wrong answer is no figure."""
    found = {
        way: [line.rpartition("\t")[2] for line in common.run(*process)[1].splitlines()]
        for way, process in ways.items()
    }
    if any(paths != found["clipsearch"] or len(paths) != K for paths in found.values()):
        sys.exit(f"Not the same {K} images: {found}")


if __name__ == "__main__":
    main()
