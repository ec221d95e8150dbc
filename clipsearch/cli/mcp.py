"""`clipsearch mcp`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from clipsearch.cli.options import EngineOption, VerboseOption
from clipsearch.cli.search_options import TunedOption
from clipsearch.errors import InputError
from clipsearch.models.encoder_options import Engine


def mcp(
    *,
    index: Annotated[
        list[Path] | None,
        typer.Option(
            "--index",
            metavar="DIR",
            help="An index folder, instead of the nearest .clipsearch here or above. May be repeated. [env: "
            "CLIPSEARCH_INDEX]",
            show_default=False,
        ),
    ] = None,
    model: TunedOption = None,
    engine: EngineOption = Engine.AUTO,
    verbose: VerboseOption = False,
) -> int:
    """Let an agent search, by the Model Context Protocol: a server on standard input and output.

    An agent starts this command, which ends when its input ends. Needs: pip install 'clipsearch[mcp]'
    """
    from importlib.util import find_spec

    from clipsearch.cli.log import show_log
    from clipsearch.index_choice import index_folder

    if find_spec("mcp") is None:
        raise InputError(
            "The Model Context Protocol is spoken by the package mcp, which is not installed. Install it: "
            f"{sys.executable} -m pip install 'clipsearch[mcp]'"
        )
    from clipsearch.server.indexes import Indexes
    from clipsearch.server.mcp import Tools
    from clipsearch.server.standard_input import ended_by_signals

    folders = [index_folder(given) for given in index] if index else [index_folder()]
    show_log(verbose=verbose)
    with Indexes(folders, model=model, engine=engine.value) as indexes, ended_by_signals():
        Tools(indexes).server().run("stdio")
    return 0
