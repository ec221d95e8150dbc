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
from clipsearch.cli.talk import say as say  # noqa: PLC0414  (commands import it from here)
from clipsearch.errors import InputError
from clipsearch.models.encoder_options import EncoderOptions, Engine, Precision

if TYPE_CHECKING:
    from clipsearch.output.rows import Row
    from clipsearch.search.embedder import Embedder


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
    """Check a value of `--device`. Whether the device is available is checked when a model is loaded."""
    from clipsearch.models.devices import check_device

    return check_device(given)


def _devices(incomplete: str) -> list[str]:
    """Complete a value of `--device` in the shell."""
    from clipsearch.models.devices import KNOWN

    return [name for name in KNOWN if name.startswith(incomplete)]


DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda|cuda:N|mps",
        parser=_device,
        autocompletion=_devices,
        help="The device that computes. By default the first GPU, or else the processor.",
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="The type of numbers to compute with. By default bf16 or fp16 if the device is faster with it.",
    ),
]
EngineOption = Annotated[
    Engine,
    typer.Option(
        "--engine",
        help="The library that embeds images. By default NumPy, which starts at once, for a few images, and torch for "
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
        help="How long to wait if another clipsearch is writing to the index.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say which index, model, device and precision are used, and why.")
]


class TableFormat(StrEnum):
    """The values of `--format` for commands that print rows."""

    AUTO = "auto"
    TABLE = "table"
    TSV = "tsv"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"


class Format(StrEnum):
    """The values of `--format` for commands that print images."""

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
    """The options for the output of rows."""

    format: Annotated[
        TableFormat, typer.Option("--format", help="auto: table on a terminal, tsv (without a header) in a pipe.")
    ] = TableFormat.AUTO
    json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False
    spreadsheet_safe: SpreadsheetSafeOption = False

    def form(self) -> str:
        """Return the format to print in, one of `output.rows`.

        Raises:
            InputError: the options name two formats.
        """
        asked = (self.format.value, "json" if self.json else "auto")
        return one_format(*asked, spreadsheet_safe=self.spreadsheet_safe)


def one_format(*asked: str, spreadsheet_safe: bool = False) -> str:
    """Return the one format that is asked for; by default a table for a terminal, and tsv for a pipe.

    Raises:
        InputError: several formats are asked for, or `spreadsheet_safe` with a format other than csv.
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
    """The options for the model of a command that needs no index."""

    model: ModelOption = None
    device: DeviceOption = "auto"
    precision: PrecisionOption = Precision.AUTO
    engine: EngineOption = Engine.AUTO
    index: IndexOption = None
    verbose: VerboseOption = False

    def encoder_options(self) -> EncoderOptions:
        """Return the options for the model."""
        return EncoderOptions(device=self.device, precision=self.precision.value, engine=self.engine.value)

    def open(self) -> Embedder:
        """Open the model that `--model` names, else that of the settings, else of the nearest index, else laion."""
        from clipsearch.api import load_model
        from clipsearch.cli.log import show_log
        from clipsearch.cli.progress import ProgressBar

        show_log(verbose=self.verbose)
        with ProgressBar() as bar:
            return load_model(self.model, self.index, computing=self.encoder_options(), progress=bar)


@contextmanager
def writing_output() -> Iterator[None]:
    """Flush standard output at the end of this context.

    Raises:
        OutputError: standard output cannot be written.
    """
    yield
    sys.stdout.flush()


def print_rows(
    rows: Sequence[Row],
    form: str,
    *,
    numbers: Mapping[str, str] | None = None,
    columns: Sequence[str] | None = None,
    by: str | None = None,
) -> None:
    """Write rows to standard output, as `output.rows.write_rows` does.

    Raises:
        OutputError: standard output cannot be written.
    """
    from clipsearch.output.rows import write_rows

    with writing_output():
        write_rows(rows, form, sys.stdout.buffer, screen=screen_width(), numbers=numbers, columns=columns, by=by)


def screen_width() -> int | None:
    """Return the width of the terminal in columns; None if standard output is not a terminal."""
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
