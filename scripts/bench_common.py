"""What the benchmarks share: the machine, the models, the clock and the last line."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("clipsearch", "torch", "transformers", "tokenizers", "numpy", "pillow")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
VIT_B_32 = "vit-b-32"
_PREPROCESSING = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "CLIPImageProcessor",
}
"""That of openai/clip-vit-base-patch32."""


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
    from clipsearch.models.catalog import BUNDLED, locate

    try:
        folder = locate(str(small or BUNDLED)).folder.absolute()
    except ClipsearchError as error:
        sys.exit(f"{error}\nName another small model with --model FOLDER.")
    found = {folder.name if small else BUNDLED: folder}
    if vit:
        found[VIT_B_32] = work / VIT_B_32
        make_vit_b_32(found[VIT_B_32], folder)
    return found


def make_vit_b_32(folder: Path, words: Path) -> None:
    """A CLIP of ViT-B/32's shape with random weights in `folder`, with the tokenizer of the model in `words`."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    from clipsearch.models.catalog import read_config

    # 1. Special tokens as in that tokenizer, all else as transformers has it by default, which is ViT-B/32.
    text = read_config(words)["text_config"]
    special = {name: text[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=special, vision_config={})).save_pretrained(folder)
    # 2. What belongs beside the weights.
    for name in TOKENIZER_FILES:
        if (words / name).is_file():
            shutil.copy(words / name, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSING), "utf-8")


def clipsearch_command() -> str:
    """The installed `clipsearch` of this Python."""
    found = shutil.which("clipsearch", path=os.path.dirname(sys.executable)) or shutil.which("clipsearch")
    return found or sys.exit("No clipsearch command here. Install it first: pip install -e .")


def run(command: Sequence[str], folder: Path) -> tuple[float, str]:
    """Seconds that a whole process took in `folder`, seen from outside, and its stdout."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{command} ended with {done.returncode}:\n{done.stderr.decode(errors='replace')}")
    return seconds, done.stdout.decode()


def interleaved(cases: dict[str, Callable[[], float]], runs: int) -> dict[str, list[float]]:
    """Seconds of each case in `runs` rounds A B C, A B C: a slow minute hits them all. One round first to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(runs + 1):
        for name, case in cases.items():
            took = case()
            if turn:
                seconds[name].append(took)
    return seconds


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    middle = statistics.median(values)
    return {"median": round(middle, 4), "min": round(min(values), 4), "max": round(max(values), 4)}


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """`above / below`, round by round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def show(label: str, figures: dict[str, float], unit: str, digits: int = 3) -> None:
    """One line for people."""
    median, least, most = (f"{figures[name]:.{digits}f}" for name in ("median", "min", "max"))
    print(f"{label:<44} {median:>9} {unit:<9} ({least} to {most})", flush=True)


def machine() -> dict[str, Any]:
    """Where the figures come from."""
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
