"""`clipsearch index`."""

from __future__ import annotations

import os
import time
from contextlib import closing
from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

from clipsearch.cli.options import IndexOption, JsonOption, say

EXIT_STRICT = 2


class Device(str, Enum):
    """What `--device` takes."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def index(
    paths: Annotated[
        Optional[list[Path]],  # noqa: UP045  (Typer reads this at run time, on Python 3.10 too)
        typer.Argument(
            metavar="[PATH]...",
            help="Folders or image files. Without any: all that the index knows.",
            show_default=False,
        ),
    ] = None,
    *,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--model",
            metavar="NAME",
            help="laion (the default), openai, picturebook (bundled, for drawings), a model folder, or a repository on "
            "the Hugging Face hub. [env: CLIPSEARCH_MODEL]",
            show_default=False,
        ),
    ] = None,
    device: Annotated[Device, typer.Option("--device", help="Where the model runs.")] = Device.AUTO,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="B", min=1, help="Images a step.")] = 32,
    index: IndexOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 if a file could not be read.")] = False,
    json: JsonOption = False,
) -> int:
    """Make or refresh the index of image folders.

    Only new and changed images are embedded. The index is written to .clipsearch in the current folder. Interrupt it
    at will: the next run goes on from there.
    """
    from clipsearch.api import ModelChoice
    from clipsearch.cli.progress import ProgressBar
    from clipsearch.indexing import update
    from clipsearch.models.catalog import BUNDLED, PICTUREBOOK_NOTE
    from clipsearch.output.reports import summary_json, summary_text

    started = time.perf_counter()
    folder, roots = _targets(index, paths or [])
    choice = ModelChoice(folder, roots, model, device.value, say)
    with ProgressBar() as bar:
        summary = update(folder, roots, choice.load, batch_size=batch_size, progress=bar)
    seconds = time.perf_counter() - started
    say(summary_text(summary, seconds))
    if choice.encoder and choice.encoder.name == BUNDLED:
        say(f"Note: {PICTUREBOOK_NOTE}")
    if json:
        used = (str(choice.encoder.device), choice.encoder.precision) if choice.encoder else (None, None)
        print(summary_json(summary, seconds, *used))  # noqa: T201
    return EXIT_STRICT if strict and summary.unreadable else 0


def _targets(given: Path | None, paths: list[Path]) -> tuple[Path, list[Path]]:
    """The index folder to write to, and the roots to read."""
    from clipsearch.api import index_folder
    from clipsearch.store import FOLDER, Store

    if paths and not given and not os.environ.get("CLIPSEARCH_INDEX"):
        return Path.cwd() / FOLDER, paths
    folder = index_folder(given)
    if not paths:
        with closing(Store.open(folder)) as store:
            paths = [Path(os.fsdecode(root)) for root in store.roots()]
    return folder, paths
