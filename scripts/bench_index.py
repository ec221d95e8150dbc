"""Benchmark of `clipsearch index` in images per second, beside rclip, a notebook and the limits of the machine.

Rates are measured inside one process, without imports and the loading of the model: clipsearch and the notebook, and
for the ceilings the model alone, decoding alone, and the bare matrix products of the image tower in the same
precision. Whole commands from outside are raced against rclip if it is installed (see peer_rclip.py): once with its
architecture on both sides, and once each with its own default. From all images and a quarter of them follows the
marginal rate, in which no start-up is left. The pictures are random but smooth, the same in every run. Run it with:

    python scripts/bench_index.py
    python scripts/bench_index.py --device cuda

With `--device cuda` rclip, which would run on the CPU, is left out; the share of time that the GPU waits is one minus
the model's own seconds for as many images (transfers included) over those of the whole.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import bench_common as common
import numpy as np
import numpy.typing as npt
import peer_rclip
from PIL import Image

if TYPE_CHECKING:
    from clipsearch.models.in_torch.encoder import Encoder

TEXT = "a dog is sleeping"
BATCH = 32
"""Size of the notebook's batches. The model alone and the matrix products have clipsearch's."""
BATCHES = (1, 2, 4, 8, 16, 32, 64)
PEERS_OWN = f"{common.VIT_B_32}-{peer_rclip.SIDE}"
_SMALL_PART = 4
"""Share of the pictures in the smaller set, for marginal rates."""
_LEAST = 1e-3
"""Seconds that more pictures take at the least: on a busy machine some may seem to take none."""
_OCTAVES = ((4, 60.0), (16, 30.0), (64, 15.0), (256, 8.0))
"""Cells across the picture and strength of each layer of a picture: finer is weaker, as in photographs."""
_GRAIN = 9.0
"""Strength of the noise in large pictures, whose finest layer is coarser than a pixel."""

Vectors = npt.NDArray[np.float32]


class Case(NamedTuple):
    """One kind of pictures."""

    size: tuple[int, int]
    """Width and height."""
    suffix: str
    count: int
    drawn: int
    """Number of pictures that are drawn; the others are made faster by moving and mirroring these."""


CASES = {
    "jpeg": Case((500, 375), ".jpg", 256, 256),
    "jpeg-12mp": Case((4000, 3000), ".jpg", 48, 3),
    "png": Case((1000, 750), ".png", 96, 24),
    "webp": Case((1000, 750), ".webp", 96, 24),
}


class Options(NamedTuple):
    """Options of the benchmark, and its folders."""

    work: Path
    device: str
    precision: str | None
    runs: int

    def encoder(self, model: Path) -> Encoder:
        """The model, loaded."""
        from clipsearch.models.disk.files import locate
        from clipsearch.models.in_torch.encoder import Encoder

        more = (self.precision,) if self.precision else ()
        return Encoder(locate(str(model)), self.device, *more)

    def index(self, images: Path, model: Path) -> list[str]:
        """The command that indexes a folder."""
        command = [common.clipsearch_command(), "index", str(images), "--model", str(model), "--device", self.device]
        return [*command, *(["--precision", self.precision] if self.precision else [])]


def main() -> None:
    """Prepare models and pictures, measure, report."""
    parser = argparse.ArgumentParser(description="Indexing rates of clipsearch, rclip, a notebook, and the machine.")
    common.add_options(parser, runs=3)
    peer_rclip.add_options(parser)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="kinds of pictures (all)")
    parser.add_argument(
        "--images", type=int, default=CASES["jpeg"].count, help="small JPEGs; others in proportion (%(default)s)"
    )
    parser.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"), help="(default %(default)s)")
    parser.add_argument("--precision", help="for clipsearch; its own choice by default")
    parser.add_argument("--notebook", nargs=2, type=Path, help=argparse.SUPPRESS)  # the notebook as a whole process
    parser.add_argument("--rate", nargs=2, type=Path, help=argparse.SUPPRESS)  # clipsearch's rate on --cores
    parser.add_argument("--cores", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.notebook:
        whole_notebook(*given.notebook, given.device)
        return
    if given.rate:
        rate_on_cores(*given.rate, given.cores, Options(Path.cwd(), given.device, given.precision, given.runs))
        return
    with tempfile.TemporaryDirectory(prefix="bench-index-") as name:
        work = Path(name).resolve()
        common.isolate(work)
        options = Options(work, given.device, given.precision, given.runs)
        models = common.models(given.model, work, vit=not given.no_vit)
        raced = given.device == "cpu" and not given.no_vit
        peer = peer_rclip.find(given, work) if raced else None
        if not raced:
            print("rclip is measured on a CPU and beside a ViT-B/32 only: its part is left out.", flush=True)
        parts = measure(given.cases, given.images / CASES["jpeg"].count, models, peer, options)
    common.finish(
        benchmark="index",
        unit="images per second; seconds and 10**6 bytes for whole commands",
        runs=given.runs,
        notebook_batch=BATCH,
        rclip=peer.about() if peer else None,
        **parts,
    )


def measure(
    names: Sequence[str], scale: float, models: dict[str, Path], peer: peer_rclip.Rclip | None, options: Options
) -> dict[str, Any]:
    """Measure all cases, and the curves for the first one."""
    cases: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for name in names:
        case = CASES[name]
        folder = options.work / name
        draw(folder, case._replace(count=max(8, round(case.count * scale))))
        files = sorted(folder.iterdir())
        size = sum(file.stat().st_size for file in files) // len(files)
        print(
            f"== {name}: {len(files)} pictures of {case.size[0]} x {case.size[1]}, {size // 1000} kB each", flush=True
        )
        rates = [measure_rates(model, models[model], files, options) for model in models]
        if not curves:
            curves = [{"model": model} | measure_curves(models[model], files, options) for model in models]
        races = race(models[common.VIT_B_32], peer, files, options) if peer else None
        cases.append(
            {"case": name, "images": len(files), "size": case.size, "bytes_per_image": size}
            | {"models": rates, "rclip": races}
        )
        shutil.rmtree(folder)
    return {"cases": cases, "curves": curves}


# -- rates and ceilings --------------------------------------------------------------------------------------


def measure_rates(name: str, model_folder: Path, files: list[Path], options: Options) -> dict[str, Any]:
    """Rates of one model on one kind of pictures, interleaved, and whole commands, once."""
    encoder = options.encoder(model_folder)
    model, processor = load_notebook(model_folder, encoder.device)
    ready = decoded(files, encoder)
    products = matrix_products(encoder)
    vectors: dict[str, Vectors] = {}

    def clipsearch_seconds() -> float:
        took, vectors["clipsearch"] = index_once(files, encoder, options.work)
        return took

    def notebook() -> None:
        vectors["notebook"] = embed_as_notebook(model, processor, files)

    times = common.interleaved(
        {
            "notebook": partial(common.timed, notebook),
            "clipsearch": clipsearch_seconds,
            "model_alone": partial(common.timed, lambda: embed(encoder, ready, encoder.batch_size)),
            "decoding_alone": partial(common.timed, lambda: decoded(files, encoder)),
            "matmul": partial(common.timed, lambda: products(len(files))),
        },
        options.runs,
    )
    figures = rate_figures(times, len(files), on_cpu=encoder.device.type == "cpu")
    stored = vectors["clipsearch"] / np.linalg.norm(vectors["clipsearch"], axis=1, keepdims=True)
    cosine = float((stored * vectors["notebook"]).sum(axis=1).min())
    print(f"-- {name} on {encoder.device}, {encoder.precision}")
    for case, figure in figures["rates"].items():
        common.show(case.replace("_", " "), figure, "images/s", 1)
    for case, figure in figures["ratios"].items():
        common.show(case, figure, "", 2)
    print(f"lowest cosine between the two vectors of one image: {cosine:.5f}", flush=True)
    return {
        "model": name,
        "device": str(encoder.device),
        "precision": encoder.precision,
        "precision_reason": encoder.precision_reason,
        "batch_size": encoder.batch_size,
        "calls_at_once": encoder.calls,
        **figures,
        "whole_commands": whole_commands(name, model_folder, files[0].parent, options),
        "lowest_cosine": round(cosine, 6),
    }


def rate_figures(times: dict[str, list[float]], images: int, *, on_cpu: bool) -> dict[str, Any]:
    """Rates and their ratios, round by round.

    On a CPU decoding and the model share the cores, and their seconds add up; else the slower of the two sets the
    pace. `ceiling` is made of clipsearch's own model and decoding, `matmul_ceiling` has bare products for the model.
    """
    together: Callable[[Sequence[float]], float] = sum if on_cpu else max
    decoding = times["decoding_alone"]
    times["ceiling"] = [together(both) for both in zip(times["model_alone"], decoding, strict=True)]
    times["matmul_ceiling"] = [together(both) for both in zip(times["matmul"], decoding, strict=True)]
    ratios = {
        # A ratio of rates is that of the seconds turned round.
        "clipsearch / notebook": common.ratios(times["notebook"], times["clipsearch"]),
        "clipsearch / ceiling": common.ratios(times["ceiling"], times["clipsearch"]),
        "clipsearch / matmul ceiling": common.ratios(times["matmul_ceiling"], times["clipsearch"]),
        "clipsearch / matmul": common.ratios(times["matmul"], times["clipsearch"]),
        "model alone / matmul": common.ratios(times["matmul"], times["model_alone"]),
    }
    if not on_cpu:
        ratios["share of time the GPU waits"] = [
            1 - busy for busy in common.ratios(times["model_alone"], times["clipsearch"])
        ]
    return {
        "rates": {case: common.summary([images / t for t in values]) for case, values in times.items()},
        "ratios": {name: common.summary(values) for name, values in ratios.items()},
    }


def embed(encoder: Encoder, ready: npt.NDArray[np.uint8], batch: int) -> None:
    """Put pixels through the model; the vectors come back to the CPU, so nothing is left under way."""
    in_calls(encoder, lambda start, end: encoder.encode_images(ready[start:end]), len(ready), batch)


def in_calls(encoder: Encoder, work: Callable[[int, int], object], images: int, batch: int) -> None:
    """Do `work` from one image to another in batches, in as many calls at once as `index` makes."""
    batch = min(batch, -(-images // encoder.calls))  # few pictures are shared out
    starts = range(0, images, batch)
    with divided(encoder), ThreadPoolExecutor(encoder.calls) as pool:
        list(pool.map(work, starts, [min(start + batch, images) for start in starts]))


@contextmanager
def divided(encoder: Encoder) -> Iterator[None]:
    """Within: the cores are shared out among clipsearch's calls. After it the notebook has all for itself again."""
    import torch

    threads = torch.get_num_threads()
    encoder.divide_cores()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def matrix_products(encoder: Encoder) -> Callable[[int], None]:
    """Compute, for a number of images, the matrix products of the image tower and nothing else.

    Patches, and in each layer queries, keys and values at once, the attention's way out and the two of the
    perceptron, in the encoder's precision, batches and calls at once, with weights as PyTorch keeps them; each layer
    has its own, since they do not fit the caches together. No scores, norms or activations.
    """
    import torch
    from transformers import CLIPConfig

    from clipsearch.models.disk.files import read_config

    shape: Any = CLIPConfig(**read_config(encoder.folder)).vision_config
    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    kind: dict[str, Any] = {"dtype": types[encoder.precision], "device": encoder.device}
    width, inner = shape.hidden_size, shape.intermediate_size
    patches = (shape.image_size // shape.patch_size) ** 2
    pixels = shape.num_channels * shape.patch_size**2
    layer = ((3 * width, width), (width, width), (inner, width), (width, inner))
    # 1. For each product: rows for each image, input, weights. Every call has room for the outcome before.
    most = encoder.batch_size
    steps = [(patches, torch.ones(most * patches, pixels, **kind), torch.randn(width, pixels, **kind))]
    inputs = {columns: torch.ones(most * (patches + 1), columns, **kind) for columns in (width, inner)}
    steps += [
        (patches + 1, inputs[columns], torch.randn(rows, columns, **kind))
        for _ in range(shape.num_hidden_layers)
        for rows, columns in layer
    ]
    rooms: SimpleQueue[dict[int, Any]] = SimpleQueue()
    for _ in range(encoder.calls):
        rooms.put({rows: torch.empty(most * (patches + 1), rows, **kind) for rows in (width, 3 * width, inner)})

    # 2. The work.
    @torch.inference_mode()
    def batch(start: int, end: int) -> None:
        room = rooms.get()
        for rows, seen, weight in steps:
            many = (end - start) * rows
            torch.mm(seen[:many], weight.t(), out=room[len(weight)][:many])
        if encoder.device.type == "cuda":
            torch.cuda.synchronize()
        rooms.put(room)

    return lambda images: in_calls(encoder, batch, images, most)


def whole_commands(name: str, model_folder: Path, images: Path, options: Options) -> dict[str, Any]:
    """Seconds and memory of clipsearch and of the notebook, each once, from nothing.

    clipsearch also leaves the text tower in the cache, as on a user's first day.
    """
    notebook = [sys.executable, __file__, "--notebook", str(model_folder), str(images), "--device", options.device]
    found = {}
    for way, command in (("clipsearch", options.index(images, model_folder)), ("notebook", notebook)):
        weight = common.weigh(common.Process(command, new_folder(options.work / f"{name}-{way}")))
        print(f"whole command, {way}: {weight.seconds:.1f} s")
        common.show_weight(f"whole command, {way}", weight)
        found[way] = weight.shown()
    return found


def new_folder(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


# -- curves --------------------------------------------------------------------------------------------------


def measure_curves(model_folder: Path, files: list[Path], options: Options) -> dict[str, Any]:
    """Measure how the rate grows with the batch, for the model alone, and with the cores, end to end."""
    encoder = options.encoder(model_folder)
    some = decoded(files[: max(BATCHES)], encoder)
    ready = np.resize(some, (max(BATCHES) * encoder.calls, *some.shape[1:]))  # the greatest batch for each call
    times = common.interleaved(
        {str(batch): partial(common.timed, partial(embed, encoder, ready, batch)) for batch in BATCHES}, options.runs
    )
    found = {"batch": {name: common.summary([len(ready) / t for t in values]) for name, values in times.items()}}
    del encoder
    if hasattr(os, "sched_setaffinity"):
        everything = len(os.sched_getaffinity(0))
        found["cores"] = {
            str(cores): common.summary(rates_on_cores(model_folder, files[0].parent, cores, options))
            for cores in sorted({1, everything})
        }
    for curve, figures in found.items():
        for name, figure in figures.items():
            common.show(f"{model_folder.name}, {curve} {name}", figure, "images/s", 1)
    return found


def rates_on_cores(model_folder: Path, images: Path, cores: int, options: Options) -> list[float]:
    """Measure clipsearch's rates, end to end, in a process that may use a number of cores."""
    command = [sys.executable, __file__, "--rate", str(model_folder), str(images), "--cores", str(cores)]
    command += ["--device", options.device, "--runs", str(options.runs)]
    command += ["--precision", options.precision] if options.precision else []
    rates: list[float] = json.loads(common.run(command, options.work)[1])
    return rates


def rate_on_cores(model_folder: Path, images: Path, cores: int, options: Options) -> None:
    """Run as that process."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    import torch

    torch.set_num_threads(cores)
    files = sorted(images.iterdir())
    encoder = options.encoder(model_folder)
    seconds = [index_once(files, encoder, options.work)[0] for _ in range(options.runs + 1)]
    print(json.dumps([len(files) / t for t in seconds[1:]]))


# -- rclip ---------------------------------------------------------------------------------------------------


def race(default: Path, peer: peer_rclip.Rclip, files: list[Path], options: Options) -> dict[str, Any]:
    """Whole commands against rclip: with its architecture, and with `default`, our default model's.

    All start from nothing but a model on the disk and a text tower in the cache, which the first round makes.
    """
    same = options.work / PEERS_OWN
    if not same.exists():
        common.make_vit_b_32(same, default, peer_rclip.SIDE)
    few = new_folder(options.work / "few")
    for file in files[: len(files) // _SMALL_PART]:
        shutil.copy(file, few)
    ways = {"same_architecture": same, "own_default": default}
    # 1. All of the pictures and some of them, in turns.
    cases: dict[Any, Callable[[], float]] = {}
    for images in (files[0].parent, few):
        for way, model in ways.items():
            cases[way, images] = partial(our_seconds, images, model, options)
        cases["rclip", images] = partial(their_seconds, images, peer)
    times = common.interleaved(cases, options.runs)
    # 2. Seconds of the whole, and what each image more costs.
    more = len(files) - len(files) // _SMALL_PART
    whole = {way: times[way, files[0].parent] for way in (*ways, "rclip")}
    each = {
        way: [max(long - short, _LEAST) / more for long, short in zip(values, times[way, few], strict=True)]
        for way, values in whole.items()
    }
    found: dict[str, Any] = {"seconds": {way: common.summary(values) for way, values in whole.items()}}
    found["seconds_for_a_quarter"] = {way: common.summary(times[way, few]) for way in whole}
    found["images_per_second_marginal"] = {way: common.summary([1 / t for t in values]) for way, values in each.items()}
    found["times_rclip"] = {way: common.summary(common.ratios(whole["rclip"], whole[way])) for way in ways}
    found["times_rclip_marginal"] = {way: common.summary(common.ratios(each["rclip"], each[way])) for way in ways}
    # 3. Memory, off the clock.
    found["memory"] = {
        way: common.weigh(our_process(files[0].parent, model, options)) for way, model in ways.items()
    } | {"rclip": common.weigh(their_process(files[0].parent, peer)[0])}
    show_race(found)
    found["memory"] = {way: weight.shown() for way, weight in found["memory"].items()}
    shutil.rmtree(few)
    return found


def show_race(found: dict[str, Any]) -> None:
    """Lines for people."""
    for way, figure in found["seconds"].items():
        label = "rclip" if way == "rclip" else f"clipsearch, {way.replace('_', ' ')}"
        common.show(f"whole command, {label}", figure, "s", 2)
        common.show("    without start-up", found["images_per_second_marginal"][way], "images/s", 2)
        common.show_weight(f"whole command, {label}", found["memory"][way])
    for name in ("times_rclip", "times_rclip_marginal"):
        for way, figure in found[name].items():
            common.show(f"{name.replace('_', ' ')}, {way.replace('_', ' ')}", figure, "times", 2)


def our_process(images: Path, model: Path, options: Options) -> common.Process:
    """`clipsearch index` from nothing."""
    return common.Process(options.index(images, model), new_folder(options.work / "race"))


def our_seconds(images: Path, model: Path, options: Options) -> float:
    """Return the time and memory of `clipsearch index`, whose result is checked."""
    from clipsearch.index.format import FOLDER
    from clipsearch.index.reading import Store

    process = our_process(images, model, options)
    seconds = common.seconds(process)
    with closing(Store.open(process.folder / FOLDER)) as store:
        check_count("clipsearch", sum(record.row is not None for record in store.records()), images)
    return seconds


def their_process(images: Path, peer: peer_rclip.Rclip) -> tuple[common.Process, Path]:
    """Return rclip's command to index from nothing, and the place of its index."""
    data = peer.data("race")
    return peer.index(data, images, TEXT), data


def their_seconds(images: Path, peer: peer_rclip.Rclip) -> float:
    """Return the time and memory of rclip, whose result is checked."""
    process, data = their_process(images, peer)
    seconds = common.seconds(process)
    check_count("rclip", peer_rclip.indexed(data), images)
    return seconds


def check_count(who: str, indexed: int, images: Path) -> None:
    """Exit unless every picture is in the index."""
    there = sum(1 for _ in images.iterdir())
    if indexed != there:
        sys.exit(f"Of {there} pictures {who} indexed {indexed}.")


# -- clipsearch ----------------------------------------------------------------------------------------------


def index_once(files: list[Path], encoder: Encoder, work: Path) -> tuple[float, Vectors]:
    """Seconds to index `files` from nothing with a model that is loaded, and the (N, D) vectors in their order."""
    from clipsearch.index.format import FOLDER, ModelRecord
    from clipsearch.index.models import LoadedModel
    from clipsearch.index.reading import Store
    from clipsearch.index.updating import update

    maker = ModelRecord(encoder.name, encoder.revision, encoder.fingerprint, encoder.dim)
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name) / FOLDER
        with divided(encoder):
            started = time.perf_counter()
            summary = update(folder, [files[0].parent], LoadedModel(encoder, maker))
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
    from clipsearch.images.codecs.decoding import decode
    from clipsearch.images.reading import read_file
    from clipsearch.system import cores
    from clipsearch.system.parallel import map_in_order

    def read(file: Path) -> npt.NDArray[np.uint8]:
        picture = decode(read_file(os.fsencode(file)).data, at_least=encoder.preprocessing.enough)
        return encoder.preprocessing(picture.image, picture.box)

    workers = min(32, cores.available())
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


def draw(folder: Path, case: Case) -> None:
    """Fill `folder` with random smooth pictures, always the same."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    drawn: list[npt.NDArray[np.uint8]] = []
    for i in range(case.count):
        if i < case.drawn:
            pixels = picture(rng, case.size)
            if case.drawn < case.count:
                drawn.append(pixels)
        else:
            moved = np.roll(drawn[i % case.drawn], rng.integers(0, case.size[1], 2), (0, 1))
            pixels = moved[:, ::-1] if rng.integers(2) else moved
        Image.fromarray(pixels).save(folder / f"{i:05}{case.suffix}", quality=90)


def picture(rng: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(H, W, 3) pixels of one."""
    width, height = size
    pixels = np.full((height, width, 3), 128, np.float32)
    for cells, strength in _OCTAVES:
        grid = Image.fromarray(rng.integers(0, 256, (cells * 3 // 4, cells, 3), np.uint8))
        layer = np.asarray(grid.resize(size, Image.Resampling.BICUBIC), np.float32)
        pixels += (layer / 128 - 1) * strength
    if width > 4 * _OCTAVES[-1][0]:
        pixels += rng.standard_normal(pixels.shape, np.float32) * _GRAIN
    return np.clip(pixels, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
