"""Code that benchmarks share: the machine, the models, measurement of time and memory, and the last line."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

PACKAGES = ("clipsearch", "torch", "transformers", "tokenizers", "numpy", "pillow")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
VIT_B_32 = "vit-b-32"
HEAVY = ("torch", "transformers", "pydantic")
"""Packages that neither a query nor help may wait for."""
MEGABYTE = 1_000_000
_SAMPLE_SECONDS = 0.005
_PREPROCESSING = {
    "do_resize": True,
    "resample": 3,
    "do_center_crop": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "CLIPImageProcessor",
}
"""Configuration of openai/clip-vit-base-patch32, apart from sizes."""


class Process(NamedTuple):
    """One process to measure."""

    command: Sequence[str]
    folder: Path
    """Folder in which the process is started."""
    environment: Mapping[str, str] = {}
    """Environment variables in addition to those of this process."""


class Took(NamedTuple):
    """Seconds of one process and what it started, by the clock and of the processor (user and system, all threads)."""

    clock: float
    processor: float


class Weight(NamedTuple):
    """Time and memory of one process."""

    seconds: float
    peak_mb: float | None
    """The most memory it had, in 10**6 bytes, mapped files included; None where the system does not tell."""
    own_mb: float | None
    """The largest memory without mapped files, sampled every 5 ms."""

    def shown(self) -> dict[str, float | None]:
        """Return the figures for the last line."""
        return {name: None if value is None else round(value, 3) for name, value in self._asdict().items()}


def add_options(parser: ArgumentParser, *, runs: int) -> None:
    """The options of every benchmark; `runs` is the default of `--runs`."""
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="a small model, instead of the bundled one")
    parser.add_argument("--no-vit", action="store_true", help="leave out the random ViT-B/32 (600 MB on disk)")
    parser.add_argument(
        "--runs", type=int, default=runs, help="measured runs, after one to warm up (default %(default)s)"
    )


def isolate(work: Path) -> None:
    """Let this process and those it starts use no settings, cache or network but what lies in `work`."""
    os.environ["CLIPSEARCH_CACHE"] = str(work / "cache")
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in ("CLIPSEARCH_INDEX", "CLIPSEARCH_MODEL"):
        os.environ.pop(name, None)


def models(small: Path | None, work: Path, *, vit: bool) -> dict[str, Path]:
    """The model folders to measure: the bundled model or `small`, and a random ViT-B/32 made in `work`."""
    from clipsearch.errors import ClipsearchError
    from clipsearch.models.disk.catalog import BUNDLED
    from clipsearch.models.disk.files import locate

    try:
        folder = locate(str(small or BUNDLED)).folder.absolute()
    except ClipsearchError as error:
        sys.exit(f"{error}\nName another small model with --model FOLDER.")
    found = {folder.name if small else BUNDLED: folder}
    if vit:
        found[VIT_B_32] = work / VIT_B_32
        make_vit_b_32(found[VIT_B_32], folder)
    return found


def make_vit_b_32(folder: Path, words: Path, side: int = 224) -> None:
    """A CLIP of ViT-B/32's shape with random weights in `folder`, with the tokenizer of the model in `words`.

    The activation is that of clipsearch's default model, laion; `side` is that of its pictures, in pixels.
    """
    import torch
    from transformers import CLIPConfig, CLIPModel

    from clipsearch.models.disk.files import read_config

    # 1. Special tokens as in that tokenizer, all else as transformers has it by default, which is ViT-B/32.
    text = read_config(words)["text_config"]
    special = {name: text[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**special, "hidden_act": "gelu"}, vision_config={"image_size": side, "hidden_act": "gelu"}
    )
    CLIPModel(config).save_pretrained(folder)
    # 2. What belongs beside the weights.
    for name in TOKENIZER_FILES:
        if (words / name).is_file():
            shutil.copy(words / name, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(clip_preprocessing(side)), "utf-8")


def clip_preprocessing(side: int) -> dict[str, Any]:
    """Return CLIP's preprocessor_config.json; `side` is the side of the model's input in pixels."""
    return _PREPROCESSING | {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}


def clipsearch_command() -> str:
    """The installed `clipsearch` of this Python."""
    found = shutil.which("clipsearch", path=os.path.dirname(sys.executable)) or shutil.which("clipsearch")
    return found or sys.exit("No clipsearch command here. Install it first: pip install -e .")


def run(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    *,
    fine: Container[int] = (0,),
) -> tuple[float, str]:
    """Seconds that a whole process took in `folder`, seen from outside, and its stdout; `fine` are good exit codes."""
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **(environment or {})}, capture_output=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode not in fine:
        sys.exit(f"{command} ended with {done.returncode}:\n{done.stderr.decode(errors='replace')}")
    return seconds, done.stdout.decode()


def seconds(process: Process, *, fine: Container[int] = (0,)) -> float:
    """Return the seconds that one process took; `fine` are good exit codes."""
    return run(*process, fine=fine)[0]


def took(process: Process) -> Took:
    """Return the seconds that one process took. POSIX only."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    clock = seconds(process)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Took(clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def took_with_others(process: Process) -> Took:
    """Return what one process took, and all processes that this one has started earlier took meanwhile. Linux only."""
    before = _processor_of_all()
    clock = seconds(process)
    return Took(clock, _processor_of_all() - before)


def _processor_of_all() -> float:
    """Return the processor time of all that this process has started, directly or not, living or waited for."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = status.read_text("utf-8", "replace").rpartition(")")[2].split()
            # Parent, and then user and system of the process and of those it has waited for (proc_pid_stat(5)).
            parents[int(status.parent.name)] = int(fields[1])
            ticks[int(status.parent.name)] = sum(map(int, fields[11:15]))

    def is_mine(process: int) -> bool:
        while process not in (0, os.getpid()):
            process = parents.get(process, 0)
        return process == os.getpid()

    return sum(number for process, number in ticks.items() if is_mine(process)) / os.sysconf("SC_CLK_TCK")


def beside(found: Mapping[str, Sequence[Took]], first: str) -> dict[str, dict[str, Any]]:
    """Summarize the seconds of each case, and how many times those of `first` they are, round by round."""
    summaries: dict[str, dict[str, Any]] = {}
    for name, times in found.items():
        summaries[name] = {}
        for part in Took._fields:
            own, others = ([getattr(one, part) for one in some] for some in (times, found[first]))
            summaries[name][part] = summary(own)
            summaries[name][f"{part}_times"] = summary(ratios(own, others))
    return summaries


def weigh(process: Process) -> Weight:
    """Seconds and memory of a whole process. Looking at it costs a little, so the clock's own runs are others.

    The system's count of a child's peak begins before its `exec`, when it was as large as this process. That of the
    new program alone, VmHWM, is only there while it runs.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as talk:
        started = time.perf_counter()
        running = subprocess.Popen(
            process.command,
            cwd=process.folder,
            env={**os.environ, **process.environment},
            stdout=out,
            stderr=talk,
        )
        with sampled(running.pid) as most:
            code = running.wait()
        took = time.perf_counter() - started
        if code:
            talk.seek(0)
            sys.exit(f"{process.command} ended with {code}:\n{talk.read().decode(errors='replace')}")
    peak, own = (most[name] / MEGABYTE if most[name] else None for name in ("VmHWM", "RssAnon"))
    return Weight(took, peak, own)


@contextmanager
def sampled(process: int) -> Iterator[dict[str, int]]:
    """Sample the memory of a process in the block; yield the largest value in bytes, 0 if it is unknown."""
    most = {"VmHWM": 0, "RssAnon": 0}
    over = threading.Event()

    def look() -> None:
        while not over.wait(_SAMPLE_SECONDS):
            for name, size in _memory(process).items():
                most[name] = max(most.get(name, 0), size)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def _memory(process: int) -> dict[str, int]:
    """Read the memory of a process in bytes, on Linux."""
    try:
        lines = Path(f"/proc/{process}/status").read_text("utf-8").splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(size) * 1024 for name, size, _ in fields}


def show_weight(label: str, weight: Weight) -> None:
    """Return one line of text."""
    if weight.peak_mb and weight.own_mb:
        print(f"{label:<44} {weight.own_mb:>9.0f} MB of its own, {weight.peak_mb:.0f} MB with mapped files", flush=True)


def heavy_imports(arguments: Sequence[str], folder: Path) -> list[str]:
    """Which of `HEAVY` a clipsearch command imports."""
    command = [sys.executable, "-X", "importtime", "-m", "clipsearch", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{command} ended with {done.returncode}:\n{done.stderr.decode(errors='replace')}")
    lines = done.stderr.decode(errors="replace").splitlines()
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines if line.startswith("import time:")}
    return [name for name in HEAVY if name in imported]


def timed(work: Callable[[], object]) -> float:
    """Seconds that it took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def interleaved(cases: Mapping[str, Callable[[], T]], runs: int) -> dict[str, list[T]]:
    """What each case returns in `runs` rounds A B C, A B C: a slow minute hits them all. One round first to warm up."""
    found: dict[str, list[T]] = {name: [] for name in cases}
    for turn in range(runs + 1):
        for name, case in cases.items():
            one = case()
            if turn:
                found[name].append(one)
    return found


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    middle = statistics.median(values)
    return {"median": round(middle, 4), "min": round(min(values), 4), "max": round(max(values), 4)}


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """`above / below`, round by round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def slope(counts: Sequence[float], values: Sequence[float]) -> float | None:
    """Return the slope of `values` over `counts` by least squares; None for a single point."""
    return statistics.linear_regression(counts, values).slope if len(set(counts)) > 1 else None


def show(label: str, figures: dict[str, float], unit: str, digits: int = 3) -> None:
    """Return one line of text."""
    median, least, most = (f"{figures[name]:.{digits}f}" for name in ("median", "min", "max"))
    print(f"{label:<44} {median:>9} {unit:<9} ({least} to {most})", flush=True)


def machine() -> dict[str, Any]:
    """Describe the machine and the versions of the figures."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def finish(**result: Any) -> None:  # noqa: ANN401  (JSON)
    """The last line: everything in one JSON object."""
    print(json.dumps({"date": time.strftime("%Y-%m-%d"), "machine": machine(), **result}))


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
