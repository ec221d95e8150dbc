"""Options that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

import clipsearch

IndexOption = Annotated[
    Optional[Path],  # noqa: UP045  (Typer reads this at run time, on Python 3.10 too)
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
        help="If another clipsearch is writing to the index, wait so long for it.",
    ),
]
WAITING = "Waiting for another clipsearch that is writing to this index ..."
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def say(message: str) -> None:
    """Talk to the user; stdout is for data. What is quoted does nothing to a terminal."""
    from clipsearch.output.paths import escaped

    print("\n".join(map(escaped, message.split("\n"))), file=sys.stderr, flush=True)  # noqa: T201


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
