"""Benchmark of what `clipsearch tune` takes once pictures have vectors: learning, choosing, and the test.

The vectors are random, those of each caption near those of its picture; a control set of 250 pictures is beside
them. Words of the vocabulary are embedded by the bundled model. Reading captions, vectors from an index and writing
the model are not in it. Run it with:

    python scripts/bench_tune.py
"""

from __future__ import annotations

import argparse
import os

import bench_common as common

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as the command has it; NumPy reads it when it is imported
import numpy as np

from clipsearch.api import load_model
from clipsearch.tasks.tuning import Captioned, parts, tune_queries

_DIM = 512
_CONTROL = 250
_NOISE = 1.5
"""Length of what is added to a picture's vector to make that of its caption."""


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="Time of learning by clipsearch tune.")
    parser.add_argument("--pairs", type=int, nargs="+", default=[200, 2_000, 20_000])
    parser.add_argument("--runs", type=int, default=1, help="measured runs (default %(default)s)")
    given = parser.parse_args()
    embedder = load_model("picturebook")
    embedder.embed_texts(["a warm-up"])
    rng = np.random.default_rng(0)
    control = _captioned("control", _CONTROL, rng)
    result = {}
    for pairs in given.pairs:
        own = _captioned("own", pairs, rng)
        times = [common.timed(lambda own=own: tune_queries(embedder, own, control)) for _ in range(given.runs)]
        result[str(pairs)] = common.summary(times)
        common.show(f"{pairs} pairs", result[str(pairs)], "s", 1)
    common.finish(seconds=result, dim=_DIM, control=_CONTROL)


def _captioned(name: str, count: int, rng: np.random.Generator) -> Captioned:
    images = _unit(rng.standard_normal((count, _DIM)))
    texts = _unit(images + _NOISE / np.sqrt(_DIM) * rng.standard_normal((count, _DIM)))
    names = [f"{name}-{i}" for i in range(count)]
    shares = (1 / 3, 0.0) if name == "control" else (0.7, 0.15)
    part = parts([one.encode() for one in names], 0, shares)
    return Captioned(images, texts, np.stack([np.arange(count)] * 2, axis=1), part, np.array(names))


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    main()
