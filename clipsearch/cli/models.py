"""`clipsearch models`: its commands list, show and pull. The command check is in `models_check`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from clipsearch.cli.command import Command
from clipsearch.cli.models_check import check
from clipsearch.cli.option_groups import grouped
from clipsearch.cli.options import FormatOptions, print_rows, say, screen_width, writing_output
from clipsearch.errors import InputError

if TYPE_CHECKING:
    from clipsearch.models.disk.files import Pulled
    from clipsearch.output.rows import Row

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME|PATH",
        help="A model, by any name that --model takes; NAME@REVISION is a branch, a tag or a commit of it.",
    ),
]

models = typer.Typer(
    help="List, show, fetch and check models. Alone: list.", rich_markup_mode=None, invoke_without_command=True
)


@models.callback()
@grouped
def alone(context: typer.Context, *, output: FormatOptions) -> int:
    """List, show, fetch and check models. Alone: list."""
    if context.invoked_subcommand is None:
        return _list(output)
    if output != FormatOptions():
        raise InputError(f"Write options after the command: clipsearch models {context.invoked_subcommand} ...")
    return 0


@models.command("list", cls=Command)
@grouped
def list_(*, output: FormatOptions) -> int:
    """List the models that have a short name.

    M is millions of parameters, px the height and width of the input, ImgNet the zero-shot top-1 accuracy on ImageNet
    and COCO the recall@1 of pictures by captions, both as published; * marks the default. Formats other than the table
    have more columns. Other repositories on the Hugging Face hub, and folders, may work, too. Uses no network.
    """
    return _list(output)


def _list(output: FormatOptions) -> int:
    from clipsearch.output.models import write_list
    from clipsearch.tasks.describing import listed

    form = output.form()
    found = listed()
    with writing_output():
        write_list(found, form, sys.stdout.buffer, screen=screen_width())
    return 0


@models.command("show", cls=Command)
@grouped
def show(name: NameArgument, *, output: FormatOptions) -> int:
    """Show the facts about a model: figures, towers, preprocessing, revision, fingerprint, files.

    For a model that is not on this disk, only published figures are shown. Loads no model and uses no network.
    """
    from clipsearch.output.models import write_model
    from clipsearch.tasks.describing import describe

    form = output.form()
    found = describe(name)
    with writing_output():
        write_model(found, form, sys.stdout.buffer, screen=screen_width())
    if found.files is None:
        say(f"It is not on this disk. To fetch it: clipsearch models pull {found.name}")
    return 0


@models.command("pull", cls=Command)
@grouped
def pull(
    name: NameArgument,
    *,
    update: Annotated[
        bool, typer.Option("--update", help="Look for a newer revision on the hub, and fetch it.")
    ] = False,
    output: FormatOptions,
) -> int:
    """Fetch a model, so that it works without a network, and prepare its towers for queries.

    Files that an interrupted download completed are not fetched again. If the model is on this disk already, each file
    is compared with its hash on the hub, and damaged ones are fetched again. Prints the folder of the model.
    """
    from clipsearch.api import pull_model
    from clipsearch.cli.progress import ProgressBar
    from clipsearch.models.disk.catalog import BUNDLED, PICTUREBOOK_NOTE
    from clipsearch.output.models import in_words

    form = output.form()
    with ProgressBar() as bar:
        pulled = pull_model(name, update=update, progress=bar)
    model = pulled.files.name
    if model == BUNDLED:
        say(f"{BUNDLED} is bundled with clipsearch; there is nothing to fetch. Note: {PICTUREBOOK_NOTE}")
    elif not pulled.fetched:
        say(f"Model {model!r} is on this disk already, and whole.")
    print_rows([in_words(_row(pulled), form)], form)
    say(f"Next: clipsearch index ./images --model {model}")
    return 0


def _row(pulled: Pulled) -> Row:
    return {
        "name": pulled.files.name,
        "revision": pulled.files.revision,
        "fetched": pulled.fetched,
        "bytes": sum(check.bytes for check in pulled.checks),
        "path": os.fsencode(pulled.files.folder),
    }


models.command("check", cls=Command)(check)
