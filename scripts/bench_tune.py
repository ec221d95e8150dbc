"""Benchmark of what `clipsearch tune` takes: learning, choosing, and the test.

For the method query, pictures have vectors already. The vectors are random, those of each caption near those of its
picture; a control set of 250 pictures is beside them. Words of the vocabulary are embedded by the bundled model.
Reading captions, vectors from an index and writing the model are not in it.

For the method lora, pictures are random parts of the sample pictures, with their captions, and the samples are the
control set. Loading the model and decoding the pictures are in it, and writing the model is not. With --share 0.1, the
training is stopped after a tenth of its steps. Then "computed_seconds" is not measured: it is what it took until the
first step, and for all steps what the made ones took on average, with the looks between them. The choice of the mix
and the test are not in it.

With --vit, some steps of the method lora with a random ViT-B/32: their seconds, and the memory of the process.

    python scripts/bench_tune.py
    python scripts/bench_tune.py --method lora --pairs 200 2000
    python scripts/bench_tune.py --method lora --pairs 20000 --share 0.1
    python scripts/bench_tune.py --method lora --pairs --vit
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bench_common as common

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as the command has it; NumPy reads it when it is imported
import numpy as np

from clipsearch.api import load_model
from clipsearch.datasets.captions import Captions, read_captions
from clipsearch.system.progress import Progress
from clipsearch.tasks.tuning.captioned import Captioned, parts
from clipsearch.tasks.tuning.options import Options
from clipsearch.tasks.tuning.query import tune_queries

if TYPE_CHECKING:
    from clipsearch.search.embedder import Embedder

_DIM = 512
_CONTROL = 250
_NOISE = 1.5
"""Length of what is added to a picture's vector to make that of its caption."""
_SAMPLES = Path(__file__).resolve().parents[1] / "sample-images"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="Time of learning by clipsearch tune.")
    parser.add_argument("--method", choices=["query", "lora"], default="query")
    parser.add_argument("--pairs", type=int, nargs="*", default=[200, 2_000, 20_000])
    parser.add_argument("--runs", type=int, default=1, help="measured runs (default %(default)s)")
    parser.add_argument("--epochs", type=int, help="those of lora; by default what the command has")
    parser.add_argument("--share", type=float, default=1.0, help="share of lora's steps to make (default %(default)s)")
    parser.add_argument("--vit", action="store_true", help="steps of lora with a random ViT-B/32 (600 MB on disk)")
    parser.add_argument("--steps", type=int, default=5, help="their number, after one to warm up (default %(default)s)")
    given = parser.parse_args()
    embedder = load_model("picturebook")
    embedder.embed_texts(["a warm-up"])
    result: dict[str, Any] = {}
    for pairs in given.pairs:
        if given.method == "query":
            result[str(pairs)] = _query(embedder, pairs, given.runs)
        else:
            result[str(pairs)] = _lora(embedder, pairs, given.epochs, given.share)
    if given.vit:
        result[common.VIT_B_32] = _steps(given.steps)
    common.finish(method=given.method, **result)


def _query(embedder: Embedder, pairs: int, runs: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    control, own = _captioned("control", _CONTROL, rng), _captioned("own", pairs, rng)
    times = common.summary([common.timed(lambda: tune_queries(embedder, own, control)) for _ in range(runs)])
    common.show(f"{pairs} pairs", times, "s", 1)
    return times


def _captioned(name: str, count: int, rng: np.random.Generator) -> Captioned:
    images = _unit(rng.standard_normal((count, _DIM)))
    texts = _unit(images + _NOISE / np.sqrt(_DIM) * rng.standard_normal((count, _DIM)))
    names = [f"{name}-{i}" for i in range(count)]
    shares = (1 / 3, 0.0) if name == "control" else (0.7, 0.15)
    part = parts([one.encode() for one in names], 0, shares)
    return Captioned(images, texts, names, np.stack([np.arange(count)] * 2, axis=1), part, np.array(names))


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class _EnoughError(Exception):
    """Ends a training."""


class _Watch(Progress):
    """Notes when the training began and ended, and how many steps it had; ends it after a share of them."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.began = self.ended = 0.0
        self.done = self.total = 0

    def stepped(self, done: int, total: int, said: str) -> None:
        self.ended, self.done, self.total = time.perf_counter(), done, total
        self.began = self.began or self.ended
        if done % 20 == 0:
            print(f"{done} of {total} steps: {said}", flush=True)
        if 1 < done < total and done >= self.share * total:
            raise _EnoughError


def _lora(embedder: Embedder, pairs: int, epochs: int | None, share: float) -> dict[str, Any]:
    from clipsearch.tasks.tuning.weights import tune_weights

    watch = _Watch(share)
    with tempfile.TemporaryDirectory() as work:
        own = _parts_of_samples(Path(work), pairs)
        began, processor = time.perf_counter(), time.process_time()
        (Path(work) / "kept").mkdir()
        known = read_captions(_SAMPLES / "captions.csv")
        with suppress(_EnoughError):
            tune_weights(embedder, own, known, Path(work) / "kept", options=Options(epochs=epochs), progress=watch)
        seconds, processor = time.perf_counter() - began, time.process_time() - processor
    found = {
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
        "steps": watch.done,
        "most_steps": watch.total,
        "step_seconds": round((step := (watch.ended - watch.began) / max(1, watch.done - 1)), 3),
    }
    if share < 1:
        found["computed_seconds"] = round(watch.began - began + step * (watch.total - 1), 1)
    print(f"{pairs} pairs: {found}", flush=True)
    return found


def _parts_of_samples(folder: Path, count: int) -> Captions:
    """Make pictures that are random parts of the sample pictures."""
    from PIL import Image

    samples = read_captions(_SAMPLES / "captions.csv")
    rng = np.random.default_rng(0)
    lines = ["image,caption"]
    opened = [Image.open(os.fsdecode(image.path)).convert("RGB").resize((160, 160)) for image in samples.images]
    for i in range(count):
        text, image = samples.pairs[rng.integers(len(samples.pairs))]
        left, top = rng.integers(0, 32, 2).tolist()
        opened[image].crop((left, top, left + 128, top + 128)).save(folder / f"{i}.jpg")
        lines.append(f'{i}.jpg,"{samples.texts[text]}, {i}"')
    (folder / "captions.csv").write_text("\n".join(lines), "utf-8")
    return read_captions(folder / "captions.csv")


def _steps(count: int) -> dict[str, Any]:
    """Make steps with a random ViT-B/32."""
    from clipsearch.models.disk.files import locate
    from clipsearch.models.encoder_options import EncoderOptions
    from clipsearch.tasks.tuning.checkpoint import Checkpoint
    from clipsearch.tasks.tuning.pictures import Pixels
    from clipsearch.tasks.tuning.towers import Towers
    from clipsearch.tasks.tuning.training import Material, Training

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as work, common.sampled(os.getpid()) as most:
        folder = Path(work) / common.VIT_B_32
        common.make_vit_b_32(folder, locate("picturebook").folder)
        towers = Towers(locate(str(folder)), EncoderOptions(), "both", seed=0)
        images = Pixels(rng.integers(0, 255, (96, *towers.size, 3), np.uint8), np.arange(96))
        texts = [[0, *rng.integers(3, 2000, 12).tolist(), 1] for _ in range(160)]
        pairs = np.stack([np.arange(96)] * 2, axis=1)
        material = Material(texts[:96], images, pairs[:64], pairs[:0], pairs[64:], texts[96:])
        training = Training(towers, material, Checkpoint(Path(work), {}), epochs=count + 1, seed=0)
        times = [common.timed(training.step) for _ in range(count + 1)][1:]
    found = {**common.summary(times), "precision": towers.precision, "most_images": towers.most_images}
    found["own_mb"], found["peak_mb"] = (round(most[name] / common.MEGABYTE) for name in ("RssAnon", "VmHWM"))
    print(f"a step of ViT-B/32: {found}", flush=True)
    return found


if __name__ == "__main__":
    main()
