"""How many images a second `clipsearch index` embeds, beside the notebook way and beside what the machine can do.

Rates are measured inside one process, without imports and the loading of the model; whole commands once, from
outside. The pictures are random but smooth JPEGs, the same in every run. Run it with:

    python scripts/bench_index.py
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bench_common as common
import numpy as np
import numpy.typing as npt
from PIL import Image

if TYPE_CHECKING:
    from clipsearch.models.encoder import Encoder

BATCH = 32
_OCTAVES = ((4, 60.0), (16, 30.0), (64, 15.0), (256, 8.0))
"""Cells across the picture and strength of each layer of a picture: finer is weaker, as in photographs."""

Vectors = npt.NDArray[np.float32]


def main() -> None:
    """Prepare models and pictures, measure, report."""
    parser = argparse.ArgumentParser(description="Indexing rates of clipsearch, of a notebook, and of the machine.")
    common.add_options(parser, runs=3)
    parser.add_argument("--images", type=int, default=256, help="pictures in the folder (default %(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=[500, 375], metavar=("W", "H"), help="of each picture")
    parser.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"), help="(default %(default)s)")
    parser.add_argument("--notebook", nargs=2, type=Path, help=argparse.SUPPRESS)  # the notebook as a whole process
    given = parser.parse_args()
    if given.notebook:
        model_folder, images = given.notebook
        whole_notebook(model_folder, images, given.device)
        return
    with tempfile.TemporaryDirectory(prefix="bench-index-") as name:
        work = Path(name).resolve()
        common.isolate(work)
        folder = work / "images"
        draw(folder, given.images, (given.size[0], given.size[1]))
        files = sorted(folder.iterdir())
        size = sum(file.stat().st_size for file in files) // len(files)
        print(f"{len(files)} JPEGs of {given.size[0]} x {given.size[1]}, {size // 1000} kB each", flush=True)
        models = common.models(given.model, work, vit=not given.no_vit)
        results = [measure(name, model, files, work, given.device, given.runs) for name, model in models.items()]
    common.finish(
        benchmark="index",
        unit="images per second; seconds for whole commands",
        runs=given.runs,
        images=len(files),
        size=given.size,
        bytes_per_image=size,
        batch=BATCH,
        models=results,
    )


def measure(name: str, model_folder: Path, files: list[Path], work: Path, device: str, runs: int) -> dict[str, Any]:
    """All figures of one model."""
    from clipsearch.models.catalog import locate
    from clipsearch.models.encoder import Encoder

    # 1. Whole commands, once. Ours also leaves the text tower in the cache, as on a user's first day.
    ours, theirs = work / f"{name}-clipsearch", work / f"{name}-notebook"
    ours.mkdir()
    theirs.mkdir()
    index = [common.clipsearch_command(), "index", str(files[0].parent), "--model", str(model_folder)]
    notebook = [sys.executable, __file__, "--notebook", str(model_folder), str(files[0].parent)]
    whole = {
        "clipsearch": round(common.run([*index, "--device", device], ours)[0], 3),
        "notebook": round(common.run([*notebook, "--device", device], theirs)[0], 3),
    }
    # 2. Rates, interleaved.
    encoder = Encoder(locate(str(model_folder)), device)
    model, processor = load_notebook(model_folder, encoder.device)
    ready = decoded(files, encoder)
    vectors: dict[str, Vectors] = {}

    def clipsearch_seconds() -> float:
        took, vectors["clipsearch"] = index_once(files, encoder, work)
        return took

    def notebook_seconds() -> float:
        started = time.perf_counter()
        vectors["notebook"] = embed_as_notebook(model, processor, files)
        return time.perf_counter() - started

    def model_seconds() -> float:
        started = time.perf_counter()
        for start in range(0, len(ready), BATCH):
            encoder.encode_images(ready[start : start + BATCH])
        return time.perf_counter() - started

    def decode_seconds() -> float:
        started = time.perf_counter()
        decoded(files, encoder)
        return time.perf_counter() - started

    times = common.interleaved(
        {
            "notebook": notebook_seconds,
            "clipsearch": clipsearch_seconds,
            "model_alone": model_seconds,
            "decoding_alone": decode_seconds,
        },
        runs,
    )
    # 3. The ceiling: on a CPU both share the cores and their times add up; else the slower of the two sets the pace.
    both = zip(times["model_alone"], times["decoding_alone"], strict=True)
    times["ceiling"] = [m + d if encoder.device.type == "cpu" else max(m, d) for m, d in both]
    # 4. The figures.
    rates = {case: common.summary([len(files) / t for t in values]) for case, values in times.items()}
    ratio = common.summary(common.ratios(times["notebook"], times["clipsearch"]))
    share = common.summary(common.ratios(times["ceiling"], times["clipsearch"]))
    stored = vectors["clipsearch"] / np.linalg.norm(vectors["clipsearch"], axis=1, keepdims=True)
    cosine = float((stored * vectors["notebook"]).sum(axis=1).min())
    print(f"-- {name} on {encoder.device}, {encoder.precision}")
    for case, figure in rates.items():
        common.show(case.replace("_", " "), figure, "images/s", 1)
    common.show("clipsearch / notebook", ratio, "times", 2)
    common.show("clipsearch / ceiling", share, "", 2)
    print(f"whole command: clipsearch {whole['clipsearch']:.1f} s, notebook {whole['notebook']:.1f} s")
    print(f"lowest cosine between the two vectors of one image: {cosine:.5f}", flush=True)
    return {
        "model": name,
        "device": str(encoder.device),
        "precision": encoder.precision,
        "rates": rates,
        "ratio": ratio,
        "share_of_ceiling": share,
        "whole_command": whole,
        "lowest_cosine": round(cosine, 6),
    }


# -- clipsearch ----------------------------------------------------------------------------------------------


class Silent:
    """A progress bar that nobody sees."""

    def waiting(self) -> None:
        """Say nothing."""

    def searching(self, files: int) -> None:
        """Say nothing."""

    def start(self, total: int) -> None:
        """Say nothing."""

    def advance(self, files: int, unreadable: int = 0) -> None:
        """Say nothing."""


def index_once(files: list[Path], encoder: Encoder, work: Path) -> tuple[float, Vectors]:
    """Seconds to index `files` from nothing with a model that is loaded, and the (N, D) vectors in their order."""
    from clipsearch.indexing import update
    from clipsearch.store.format import FOLDER, ModelRecord
    from clipsearch.store.reading import Store

    maker = ModelRecord(encoder.name, encoder.revision, encoder.fingerprint, encoder.dim)
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name) / FOLDER
        started = time.perf_counter()
        summary = update(folder, [files[0].parent], lambda: (encoder, maker), batch_size=BATCH, progress=Silent())
        seconds = time.perf_counter() - started
        if summary.embedded != len(files):
            sys.exit(f"Of {len(files)} pictures {summary.embedded} were embedded.")
        with closing(Store.open(folder)) as store:
            rows = {record.path: record.row for record in store.records() if record.row is not None}
            matrix, _ = store.matrix()
            vectors = matrix[[rows[os.fsencode(file)] for file in files]].astype(np.float32)
    return seconds, vectors


def decoded(files: list[Path], encoder: Encoder) -> npt.NDArray[np.uint8]:
    """(N, H, W, 3) pixels as `index` prepares them for the model, by as many threads."""
    from clipsearch.images.decoding import decode
    from clipsearch.images.reading import map_in_order, read_file

    def read(file: Path) -> npt.NDArray[np.uint8]:
        return encoder.preprocessing(decode(read_file(os.fsencode(file)).data).image)

    workers = min(32, os.cpu_count() or 1)
    return np.stack(list(map_in_order(read, files, workers, BATCH + 2 * workers)))


# -- the notebook --------------------------------------------------------------------------------------------


def load_notebook(folder: Path, device: Any) -> tuple[Any, Any]:  # noqa: ANN401  (a torch device or its name)
    """Model and processor as most notebooks load them, with Pillow preparing the pictures."""
    from transformers import CLIPModel, CLIPProcessor

    model: Any = CLIPModel.from_pretrained(folder)
    return model.eval().to(device), CLIPProcessor.from_pretrained(folder, backend="pil")


def embed_as_notebook(model: Any, processor: Any, files: list[Path]) -> Vectors:  # noqa: ANN401  (transformers')
    """(N, D) unit vectors of `files`, one batch after the other."""
    import torch

    vectors = []
    with torch.no_grad():
        for start in range(0, len(files), BATCH):
            images = [Image.open(file).convert("RGB") for file in files[start : start + BATCH]]
            inputs = processor(images=images, return_tensors="pt").to(model.device)
            vectors.append(model.get_image_features(**inputs).pooler_output.cpu().numpy())
    found = np.concatenate(vectors)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def whole_notebook(model_folder: Path, images: Path, device: str) -> None:
    """A notebook from its imports to its saved vectors, in the current folder."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model, processor = load_notebook(model_folder, device)
    np.save("vectors.npy", embed_as_notebook(model, processor, sorted(images.iterdir())))


# -- pictures ------------------------------------------------------------------------------------------------


def draw(folder: Path, number: int, size: tuple[int, int]) -> None:
    """Fill `folder` with `number` random smooth JPEGs of `size` (width, height), always the same."""
    folder.mkdir()
    width, height = size
    rng = np.random.default_rng(0)
    for i in range(number):
        pixels = np.full((height, width, 3), 128, np.float32)
        for cells, strength in _OCTAVES:
            grid = Image.fromarray(rng.integers(0, 256, (cells * 3 // 4, cells, 3), np.uint8))
            layer = np.asarray(grid.resize(size, Image.Resampling.BICUBIC), np.float32)
            pixels += (layer / 128 - 1) * strength
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{i:05}.jpg", quality=90)


if __name__ == "__main__":
    main()
