"""Options that several commands share."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import clipsearch
from clipsearch.cli.talk import say as say  # noqa: PLC0414  (commands have it from here)
from clipsearch.errors import InputError

if TYPE_CHECKING:
    from clipsearch.models.encoder_options import EncoderOptions
    from clipsearch.output.rows import Row
    from clipsearch.search.embedder import Embedder


class Precision(StrEnum):
    """What `--precision` takes."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Engine(StrEnum):
    """What `--engine` takes."""

    AUTO = "auto"
    NUMPY = "numpy"
    TORCH = "torch"


ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="A short name such as laion (the default) or siglip2 (see: clipsearch models), a model's folder, or a "
        "repository on the Hugging Face hub; also NAME@REVISION. [env: CLIPSEARCH_MODEL]",
        show_default=False,
    ),
]


def _device(given: str) -> str:
    """What `--device` takes; whether it is there is seen when a model needs it."""
    from clipsearch.models.devices import check_device

    return check_device(given)


def _devices(incomplete: str) -> list[str]:
    """For the shell's completion."""
    from clipsearch.models.devices import KNOWN

    return [name for name in KNOWN if name.startswith(incomplete)]


DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda|cuda:N|mps",
        parser=_device,
        autocompletion=_devices,
        help="Where the model runs. By default on the first GPU, or else on the processor.",
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="The type of numbers to compute in. By default bf16 or fp16 where the device is faster in it.",
    ),
]
EngineOption = Annotated[
    Engine,
    typer.Option(
        "--engine",
        help="What embeds images that no index knows. By default NumPy, which starts at once, for a few, and torch for "
        "many.",
    ),
]
IndexOption = Annotated[
    Path | None,
    typer.Option(
        "--index",
        metavar="DIR",
        help="The index folder, instead of the nearest .clipsearch here or above. [env: CLIPSEARCH_INDEX]",
        show_default=False,
    ),
]
WaitOption = Annotated[
    float,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        min=0,
        help="How long to wait where another clipsearch is writing to the index.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say which index, model, device and precision are used, and why.")
]


class TableFormat(StrEnum):
    """What `--format` takes where rows are printed."""

    AUTO = "auto"
    TABLE = "table"
    TSV = "tsv"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"


class Format(StrEnum):
    """What `--format` takes where images are printed."""

    AUTO = "auto"
    TABLE = "table"
    TSV = "tsv"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"
    PATHS = "paths"


SpreadsheetSafeOption = Annotated[
    bool,
    typer.Option(
        "--spreadsheet-safe",
        help="In CSV, put an apostrophe before texts and names that a spreadsheet would take for formulas.",
    ),
]


@dataclass(frozen=True)
class FormatOptions:
    """How a command prints its rows."""

    format: Annotated[
        TableFormat, typer.Option("--format", help="auto: table on a terminal, tsv (without a header) in a pipe.")
    ] = TableFormat.AUTO
    json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False
    spreadsheet_safe: SpreadsheetSafeOption = False

    def form(self) -> str:
        """The format that is meant: one that `output.rows` knows.

        Raises:
            InputError: two are.
        """
        asked = (self.format.value, "json" if self.json else "auto")
        return one_format(*asked, spreadsheet_safe=self.spreadsheet_safe)


def one_format(*asked: str, spreadsheet_safe: bool = False) -> str:
    """The one that is asked for; if none is, a table for a terminal and tsv for a pipe.

    Raises:
        InputError: several are, or another than csv is to be safe for spreadsheets.
    """
    different = sorted({form for form in asked if form != "auto"})
    if len(different) > 1:
        raise InputError(f"One output format at a time, not {' and '.join(different)}")
    if spreadsheet_safe:
        if different != ["csv"]:
            raise InputError("--spreadsheet-safe is for CSV: add --format csv.")
        return "safe-csv"
    return different[0] if different else "table" if sys.stdout.isatty() else "tsv"


@dataclass(frozen=True)
class ModelOptions:
    """The model of a command that needs no index."""

    model: ModelOption = None
    device: DeviceOption = "auto"
    precision: PrecisionOption = Precision.AUTO
    engine: EngineOption = Engine.AUTO
    index: IndexOption = None
    verbose: VerboseOption = False

    def encoder_options(self) -> EncoderOptions:
        """How the model is to compute."""
        from clipsearch.models.encoder_options import EncoderOptions

        return EncoderOptions(device=self.device, precision=self.precision.value, engine=self.engine.value)

    def open(self) -> Embedder:
        """The model: what `--model` says, else settings, else that of the nearest index, else laion."""
        from clipsearch.api import load_model
        from clipsearch.cli.log import show_log
        from clipsearch.cli.progress import ProgressBar

        show_log(verbose=self.verbose)
        with ProgressBar() as bar:
            return load_model(self.model, self.index, computing=self.encoder_options(), progress=bar)


@contextmanager
def writing_output() -> Iterator[None]:
    """Within: standard output is written; it is all out at the end.

    Raises:
        OutputError: it cannot be written.
    """
    yield
    sys.stdout.flush()


def print_rows(
    rows: Sequence[Row],
    form: str,
    *,
    numbers: Mapping[str, str] | None = None,
    columns: Sequence[str] | None = None,
) -> None:
    """Write records to standard output, as `output.rows.write_rows` does.

    Raises:
        OutputError: it cannot be written.
    """
    from clipsearch.output.rows import write_rows

    with writing_output():
        write_rows(rows, form, sys.stdout.buffer, screen=screen_width(), numbers=numbers, columns=columns)


def screen_width() -> int | None:
    """Of the terminal that standard output is, in columns; None if it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _print_version(wanted: bool) -> None:  # noqa: FBT001  (Typer's callback)
    if wanted:
        print(f"clipsearch {clipsearch.__version__}")  # noqa: T201
        raise typer.Exit


def version_option(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Find pictures in folders by what they show."""
