"""How long a cold `clipsearch query` takes, beside the same question asked the notebook way.

Whole processes, timed from outside: interpreter, imports, model, ranking, output. Cold means a new process; files
are in the system's page cache. Indexes are made of random unit vectors, without any image. Run it with:

    python scripts/bench_query.py --rows 1000 100000
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import bench_common as common
import numpy as np

if TYPE_CHECKING:
    from clipsearch.store.format import ModelRecord

TEXT, K = "a dog is sleeping", 3
_BLOCK_ROWS = 65_536
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
"""What a notebook does that has saved its vectors once."""


def main() -> None:
    """Prepare models and indexes, measure, report."""
    parser = argparse.ArgumentParser(description="Cold query times of clipsearch and of a notebook.")
    common.add_options(parser, runs=10)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000], help="images in the index (default 1000)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-query-") as name:
        work = Path(name).resolve()
        common.isolate(work)
        (work / "notebook.py").write_text(NOTEBOOK, "utf-8")
        measure(common.models(given.model, work, vit=not given.no_vit), given.rows, given.runs, work)


def measure(models: dict[str, Path], sizes: Sequence[int], runs: int, work: Path) -> None:
    """Time `clipsearch` and the notebook on every model and size, interleaved."""
    clipsearch, python = common.clipsearch_command(), sys.executable
    commands: dict[str, tuple[list[str], Path]] = {
        "python -c pass": ([python, "-c", "pass"], work),
        'python -c "import numpy"': ([python, "-c", "import numpy"], work),
        "clipsearch --help": ([clipsearch, "--help"], work),
    }
    floors = list(commands)
    # 1. Indexes, and on each the same question in both ways.
    pairs = []
    for model, model_folder in models.items():
        record = keep_text_tower(model_folder)
        for rows in sizes:
            folder = work / f"{model}-{rows}"
            make_index(folder, record, rows)
            ours, theirs = f"clipsearch query, {model}, {rows} rows", f"notebook, {model}, {rows} rows"
            commands[ours] = ([clipsearch, "query", TEXT, "-k", str(K)], folder)
            commands[theirs] = ([python, str(work / "notebook.py"), str(model_folder), TEXT, str(K)], folder)
            check_same_answer(commands[ours], commands[theirs])
            pairs.append((model, rows, ours, theirs))
    # 2. The clock.
    cases: dict[str, Callable[[], float]] = {name: partial(seconds, *command) for name, command in commands.items()}
    times = common.interleaved(cases, runs)
    # 3. The figures.
    figures = {name: common.summary(values) for name, values in times.items()}
    for name, figure in figures.items():
        common.show(name, figure, "s")
    queries = []
    for model, rows, ours, theirs in pairs:
        ratio = common.summary(common.ratios(times[theirs], times[ours]))
        common.show(f"notebook / clipsearch, {model}, {rows} rows", ratio, "times", 1)
        queries.append(
            {"model": model, "rows": rows, "clipsearch": figures[ours], "notebook": figures[theirs], "ratio": ratio}
        )
    common.finish(
        benchmark="query",
        unit="seconds",
        runs=runs,
        text=TEXT,
        k=K,
        processes={name: figures[name] for name in floors},
        queries=queries,
    )


def seconds(command: Sequence[str], folder: Path) -> float:
    """How long one process took."""
    return common.run(command, folder)[0]


def keep_text_tower(model_folder: Path) -> ModelRecord:
    """Leave a model's text tower in the cache, as `clipsearch index` does; what its index says of the model."""
    from clipsearch.models.catalog import locate
    from clipsearch.models.encoder import Encoder
    from clipsearch.store.format import ModelRecord

    encoder = Encoder(locate(str(model_folder)), "cpu")
    encoder.save_text_tower()
    return ModelRecord(encoder.name, encoder.revision, encoder.fingerprint, encoder.dim)


def make_index(folder: Path, model: ModelRecord, rows: int) -> None:
    """In `folder` an index of random vectors, and the same vectors as a notebook keeps them."""
    from clipsearch.store.format import FOLDER, Record
    from clipsearch.store.writing import Writer

    # 1. Unit vectors, rounded to float16 for both, so that both must find the same.
    vectors = np.random.default_rng(0).standard_normal((rows, model.dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors.astype(np.float16).astype(np.float32)
    paths = [f"images/{row // 1000:04}/{row:07}.jpg" for row in range(rows)]
    # 2. Ours and theirs.
    with Writer.locked(folder / FOLDER) as writer:
        writer.set_model(model)
        writer.set_root(os.fsencode(folder / "images"), {})
        for start in range(0, rows, _BLOCK_ROWS):
            block = vectors[start : start + _BLOCK_ROWS]
            records = [
                Record(os.fsencode(folder / paths[row]), None, 100_000, row, row.to_bytes(16, "little"))
                for row in range(start, start + len(block))
            ]
            writer.add(records, block)
        writer.commit()
    np.save(folder / "vectors.npy", vectors)
    (folder / "paths.json").write_text(json.dumps(paths), "utf-8")


def check_same_answer(ours: tuple[list[str], Path], theirs: tuple[list[str], Path]) -> None:
    """Exit unless both commands name the same images: a fast wrong answer is no figure."""
    found, expected = (
        [line.rpartition("\t")[2] for line in common.run(*way)[1].splitlines()] for way in (ours, theirs)
    )
    if found != expected:
        sys.exit(f"clipsearch found {found}, the notebook {expected}.")


if __name__ == "__main__":
    main()
