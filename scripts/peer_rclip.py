"""The peer that the benchmarks are measured beside: rclip (PyPI), which runs CLIP through ONNX Runtime, without torch.

Everything that the benchmarks know about rclip 3.3.0 is here: its data folder, its database, its commands. Nothing of
the user's is touched, and it never asks the network: RCLIP_DATADIR names a folder of the benchmark's, where it finds
all files that it would fetch. Install it in an environment of its own, since it pins another NumPy than clipsearch:

    python -m venv rclip && rclip/bin/pip install rclip==3.3.0
    python scripts/bench_query.py --rclip rclip/bin/rclip

Its weights are not fetched either. It takes any ONNX files of the right form, so it gets random ones of its own
architecture (open_clip's ViT-B-32-256: ViT-B/32 at 256 pixels, GELU), made with `pip install onnx`. As its own
converter does (scripts/convert_model.py in its repository) they are float32, opset 18, traced, with a free number of
images. The graph is transformers', which ran 7 % faster in ONNX Runtime than one with open_clip's packed attention.
Its vocabulary is replaced by one of the same form and size, of letters' combinations; whatever the words, its text
tower always computes 77 tokens. rclip takes as many threads as it may use cores, and batches of 8.
"""

from __future__ import annotations

import gzip
import itertools
import os
import shutil
import sqlite3
import string
import subprocess
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench_common as common

SIDE = 256
_DIM, _CONTEXT, _MERGES = 512, 77, 48_894
_MODELS = "ViT-B-32-256-datacomp_s34b_b86k"
_VOCABULARY = "tokenizer/bpe_simple_vocab_16e6.txt.gz"
_DATABASE, _DATABASE_VERSION = "db.sqlite3", 4
_BLOCK_ROWS = 50_000


def add_options(parser: ArgumentParser) -> None:
    """The options of every benchmark with a peer."""
    parser.add_argument("--rclip", metavar="COMMAND", help="the peer (default: rclip on PATH; left out if not there)")
    parser.add_argument("--no-rclip", action="store_true", help="leave the peer out")
    parser.add_argument(
        "--vocabulary", type=Path, metavar="FILE", help="CLIP's bpe_simple_vocab_16e6.txt.gz for rclip; else made up"
    )


def command_of(given: Namespace) -> str | None:
    """Return the rclip to measure; if there is none, print that and return None."""
    if given.no_rclip:
        return None
    found = shutil.which(given.rclip or "rclip")
    if found is None and given.rclip:
        sys.exit(f"There is no command {given.rclip}.")
    if found is None:
        print("rclip is not installed: its part is left out.", flush=True)
    return os.path.abspath(found) if found else None


def find(given: Namespace, work: Path) -> Rclip | None:
    """The peer, ready to run; None if there is none."""
    command = command_of(given)
    return Rclip(command, work / "rclip", given.vocabulary) if command else None


class Rclip:
    """rclip with weights of its own architecture, and a data folder for each of its indexes."""

    def __init__(self, command: str, work: Path, vocabulary: Path | None) -> None:
        self.command = command
        self._work = work
        self._vocabulary = vocabulary
        print("rclip: making weights ...", flush=True)
        (work / _MODELS).mkdir(parents=True)
        export(work / _MODELS)
        (work / _VOCABULARY).parent.mkdir()
        if vocabulary:
            shutil.copy(vocabulary, work / _VOCABULARY)
        else:
            make_vocabulary(work / _VOCABULARY)

    def about(self) -> dict[str, Any]:
        """Return the measured version, for the last line."""
        return {
            "version": version(self.command),
            "onnxruntime": self._package("onnxruntime"),
            "model": "ViT-B/32 at 256 pixels, random weights, float32",
            "vocabulary": "given" if self._vocabulary else "made up",
        }

    def _package(self, name: str) -> str | None:
        """Return the version of a package beside rclip; None if it is unknown."""
        python = Path(self.command).resolve().with_name("python")
        code = f"from importlib.metadata import version; print(version({name!r}))"
        if not python.exists():
            return None
        return subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout.strip() or None

    def data(self, name: str) -> Path:
        """A new data folder without an index."""
        folder = self._work / "data" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for part in (_MODELS, Path(_VOCABULARY).parts[0]):
            (folder / part).symlink_to(self._work / part, target_is_directory=True)
        return folder

    def query(self, data: Path, images: Path, text: str, k: int) -> common.Process:
        """Ask an index as it is, without a look at the files."""
        return common.Process([self.command, text, "--no-indexing", "--top", str(k)], images, _environment(data))

    def index(self, data: Path, images: Path, text: str) -> common.Process:
        """Index a folder.

        rclip has no command for that alone: it compares the folder before each query. One query on so few images is
        part of the seconds, some tenths; marginal rates are free of it.
        """
        return common.Process([self.command, text, "--top", "1"], images, _environment(data))

    def fill(self, data: Path, images: Path, rows: int) -> None:
        """Make an index of random unit vectors; `images` need not hold any file, and is made if need be."""
        import numpy as np

        # 1. rclip makes its own tables, so that a change of them shows.
        images.mkdir(parents=True, exist_ok=True)
        common.run(*self.query(data, images, "nothing", 1))
        database = sqlite3.connect(data / _DATABASE)
        found = database.execute("SELECT version FROM db_version").fetchone()[0]
        if found != _DATABASE_VERSION:
            sys.exit(f"This rclip has databases of version {found}; peer_rclip.py knows {_DATABASE_VERSION}.")
        # 2. Rows as it writes them. No journal: if this fails, the benchmark fails.
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        random = np.random.default_rng(0)
        for start in range(0, rows, _BLOCK_ROWS):
            vectors = random.standard_normal((min(_BLOCK_ROWS, rows - start), _DIM), np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            database.executemany(
                "INSERT INTO images (filepath, modified_at, size, vector, hash) VALUES (?, ?, ?, ?, ?)",
                (
                    (
                        f"{images}/{row // 1000:04}/{row:07}.jpg",
                        1.7e9,
                        100_000,
                        vector.tobytes(),
                        random.bytes(32).hex(),
                    )
                    for row, vector in enumerate(vectors, start)
                ),
            )
        database.commit()
        database.close()


def version(command: str) -> str:
    """Read the version of rclip."""
    return subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]


def check_query(process: common.Process, k: int) -> None:
    """Exit unless rclip gives `k` hits: a heading and a line for each."""
    lines = common.run(*process)[1].splitlines()
    if len(lines) != k + 1 or not all(0 <= abs(float(line.split("\t")[0])) <= 1.01 for line in lines[1:]):
        sys.exit(f"rclip should have given {k} hits, but said {lines}.")


def indexed(data: Path) -> int:
    """Return the number of images in an index."""
    database = sqlite3.connect(data / _DATABASE)
    (count,) = database.execute("SELECT count(*) FROM images WHERE deleted IS NULL").fetchone()
    database.close()
    return int(count)


def _environment(data: Path) -> dict[str, str]:
    return {"RCLIP_DATADIR": str(data), "HF_HUB_OFFLINE": "1"}


def make_vocabulary(path: Path) -> None:
    """Write as many merges as CLIP has, in its file format: two letters, three, four, inside words and at the end."""
    lines = ["a vocabulary for benchmarks", *itertools.islice(_merges(), _MERGES)]
    with gzip.open(path, "wt", encoding="utf-8", newline="\n") as file:
        file.write("\n".join(lines) + "\n")


def _merges() -> Iterator[str]:
    """Pairs of tokens: both are known when they are merged, and no two pairs make the same."""
    letters = string.ascii_lowercase
    pairs = [first + second for first in letters for second in letters]
    for long in (False, True):
        for end in ("", "</w>"):
            for first in pairs if long else letters:
                yield from (f"{first} {second}{end}" for second in letters)
    yield from (f"{first} {second}</w>" for first in pairs for second in pairs)


def export(folder: Path) -> None:
    """Write visual.onnx and textual.onnx, with random weights."""
    try:
        import onnx  # noqa: F401  (torch writes nothing without it)
    except ImportError:
        sys.exit("The peer's random weights are written with onnx: pip install onnx (or leave it out: --no-rclip)")
    import torch
    from transformers import CLIPConfig, CLIPModel

    class Tower(torch.nn.Module):
        """One half of CLIP with one input and one output."""

        def __init__(self, model: torch.nn.Module, method: str, name: str) -> None:
            super().__init__()
            self.model, self.method, self.name = model, method, name

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """(B, D) vectors."""
            found: torch.Tensor = getattr(self.model, self.method)(**{self.name: x}).pooler_output
            return found

    # 1. As in open_clip the greatest token id ends a text: 2 is transformers' mark for that.
    torch.manual_seed(0)
    text, vision = {"hidden_act": "gelu", "eos_token_id": 2}, {"hidden_act": "gelu", "image_size": SIDE}
    model: Any = CLIPModel(CLIPConfig(text_config=text, vision_config=vision)).eval()
    towers = {
        "visual": (Tower(model, "get_image_features", "pixel_values"), torch.zeros(1, 3, SIDE, SIDE)),
        "textual": (Tower(model, "get_text_features", "input_ids"), torch.zeros(1, _CONTEXT, dtype=torch.long)),
    }
    # 2. The tracer warns of every decision that it takes for this shape; the checks before the clock run them all.
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        for name, (tower, example) in towers.items():
            torch.onnx.export(
                tower.eval(),
                (example,),
                str(folder / f"{name}.onnx"),
                input_names=["input"],
                output_names=["output"],
                dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
                opset_version=18,
                dynamo=False,
            )
