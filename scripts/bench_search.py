"""Benchmark of the query language: filters, cut-offs, all hits, a thousand queries at once.

Whole processes of `clipsearch query` on an index of random unit vectors, beside the plain question. A thousand queries
are also asked the notebook way: one model load through transformers, texts in batches of 64, one matrix product in
float32. Run it with:

    python scripts/bench_search.py --rows 100000
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from functools import partial
from pathlib import Path

import bench_common as common
from bench_query import keep_text_tower, make_index

TEXT, K = "a dog is sleeping", 3
PLAIN, MANY, NOTEBOOK_MANY = "plain", "many", "many, notebook"
NOTEBOOK = """\
import json, sys
import numpy as np
import torch
from transformers import CLIPModel, CLIPProcessor

folder, queries, k = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = CLIPModel.from_pretrained(folder).eval()
processor = CLIPProcessor.from_pretrained(folder)
texts = open(queries).read().splitlines()
vectors = []
with torch.no_grad():
    for start in range(0, len(texts), 64):
        inputs = processor(text=texts[start : start + 64], return_tensors="pt", padding=True)
        vectors.append(model.get_text_features(**inputs).pooler_output.numpy())
vectors = np.concatenate(vectors)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
matrix = np.load("vectors.npy")
paths = json.load(open("paths.json"))
for text, vector in zip(texts, vectors):
    scores = matrix @ vector
    best = np.argpartition(-scores, k)[:k]
    for row in best[np.argsort(-scores[best])]:
        print(text, scores[row], paths[row], sep="\\t")
"""
WAYS = {
    "--under": ["--under", "images/0003"],
    "--glob": ["--glob", "00[0-4]*/*7.jpg"],
    "--after --before": ["--after", "2020-01-20", "--before", "2020-02"],
    "--orientation": ["--orientation", "portrait"],
    "--not": ["--not", "snow"],
    "--min-score": ["--min-score", "0.05"],
    "--min-confidence": ["--min-confidence", "0.5"],
    "--min-confidence, nothing found": ["--min-confidence", "1"],
    "-k all": ["-k", "all"],
    "-k all --format csv": ["-k", "all", "--format", "csv"],
}
"""Options that are added to the plain query."""
_SUBJECTS = ("dog", "cat", "horse", "car", "house", "boat", "tree", "girl", "man", "pizza", "clock", "bird")
_ACTIONS = ("sleeping", "running", "in the snow", "on the beach", "at night", "next to a fence", "seen from above")
_LOOKS = ("red", "small", "old", "happy", "two-coloured", "blurry", "very large", "wet", "broken", "shiny", "dark")


def main() -> None:
    """Prepare, measure, report."""
    parser = argparse.ArgumentParser(description="What the query language costs.")
    common.add_options(parser, runs=5)
    parser.add_argument("--rows", type=int, default=100_000, help="images in the index (default 100000)")
    parser.add_argument("--queries", type=int, default=1000, help="how many at once (default 1000)")
    parser.add_argument("--no-notebook", action="store_true", help="leave the notebook out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-search-") as name:
        work = Path(name).resolve()
        common.isolate(work)
        *_, (model, model_folder) = common.models(given.model, work, vit=not given.no_vit).items()
        make_index(work, keep_text_tower(model_folder), given.rows, notebook=not given.no_notebook)
        ways = prepare(work, model_folder, given.queries, notebook=not given.no_notebook)
        figures = measure(ways, given.runs)
    common.finish(
        benchmark="search",
        unit="seconds; 10**6 bytes",
        model=model,
        rows=given.rows,
        queries=given.queries,
        runs=given.runs,
        k=K,
        **figures,
    )


def prepare(work: Path, model: Path, queries: int, *, notebook: bool) -> dict[str, common.Process]:
    """List the commands to measure; answers to many queries are checked."""
    (work / "queries.txt").write_text("".join(f"{line}\n" for line in sentences(queries)), "utf-8")
    (work / "notebook.py").write_text(NOTEBOOK, "utf-8")
    ask = [common.clipsearch_command(), "query"]
    ways = {PLAIN: common.Process([*ask, TEXT, "-k", str(K)], work)}
    ways |= {name: common.Process([*ask, TEXT, "-k", str(K), *options], work) for name, options in WAYS.items()}
    ways[MANY] = common.Process([*ask, "--from", "queries.txt", "-k", str(K)], work)
    if notebook:
        ways[NOTEBOOK_MANY] = common.Process([sys.executable, "notebook.py", str(model), "queries.txt", str(K)], work)
        ours, theirs = (
            [(line.split("\t")[0], line.split("\t")[-1]) for line in common.run(*ways[way])[1].splitlines()]
            for way in (MANY, NOTEBOOK_MANY)
        )
        same = sum(a == b for a, b in zip(ours, theirs, strict=True))
        # Rounding may swap neighbours; more than that is another answer.
        if same < 0.99 * len(ours):
            sys.exit(f"Only {same} of {len(ours)} hits are the notebook's.")
    return ways


def sentences(number: int) -> list[str]:
    """Make a number of different queries, always the same."""
    rng = random.Random(0)
    found: dict[str, None] = {}
    while len(found) < number:
        look = rng.choice(_LOOKS)
        found[f"a {look} {rng.choice(_SUBJECTS)} {rng.choice(_ACTIONS)} and a {rng.choice(_SUBJECTS)}"] = None
    return list(found)


def measure(ways: dict[str, common.Process], runs: int) -> dict[str, object]:
    """Seconds of each way, interleaved, and memory of the plain question and of many."""
    times = common.interleaved({name: partial(elapsed, process) for name, process in ways.items()}, runs)
    figures: dict[str, object] = {}
    for name, values in times.items():
        figures[name] = common.summary(values)
        common.show(name, common.summary(values), "s")
    if NOTEBOOK_MANY in ways:
        ratio = common.summary(common.ratios(times[MANY], times[NOTEBOOK_MANY]))
        figures[f"{MANY} / {NOTEBOOK_MANY}"] = ratio
        common.show(f"{MANY} / {NOTEBOOK_MANY}", ratio, "")
    memory = {}
    for name in (PLAIN, "--min-confidence", "-k all", MANY, NOTEBOOK_MANY):
        if name in ways:
            weight = common.weigh(ways[name])
            common.show_weight(name, weight)
            memory[name] = weight.shown()
    return {**figures, "memory": memory}


def elapsed(process: common.Process) -> float:
    """Seconds of a process, which may find nothing."""
    return common.seconds(process, fine=(0, 1))


if __name__ == "__main__":
    main()
