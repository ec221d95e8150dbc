"""`clipsearch serve`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipsearch.cli.options import EngineOption, VerboseOption, say, writing_output
from clipsearch.cli.search_options import TunedOption
from clipsearch.errors import InputError
from clipsearch.models.encoder_options import Engine
from clipsearch.system.counting import plural

if TYPE_CHECKING:
    from clipsearch.server.indexes import Indexes
    from clipsearch.server.running import Server


def serve(
    *,
    index: Annotated[
        list[Path] | None,
        typer.Option(
            "--index",
            metavar="DIR",
            help="An index folder, instead of the nearest .clipsearch here or above. May be repeated; the page "
            "switches between them. [env: CLIPSEARCH_INDEX]",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="The address to listen on. Any other than this one lets other machines ask, unencrypted, with the "
            "token.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="The port; 0 takes any free one.")
    ] = 8321,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="SECRET",
            envvar="CLIPSEARCH_TOKEN",
            help="The token that requests need; by default a new one each time. [env: CLIPSEARCH_TOKEN, which other "
            "users of this machine do not see]",
            show_default=False,
            show_envvar=False,
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show what is new in the index as it comes, without another search.")
    ] = False,
    thumbnails: Annotated[
        int,
        typer.Option("--thumbnails", metavar="MB", min=0, help="Megabytes of thumbnails to keep in the cache folder."),
    ] = 500,
    model: TunedOption = None,
    engine: EngineOption = Engine.AUTO,
    verbose: VerboseOption = False,
) -> int:
    """Search in a browser, or by HTTP: a page and an API for this machine.

    Prints the address with a token that belongs to it, and runs until Ctrl-C. Needs: pip install 'clipsearch[serve]'
    """
    from clipsearch.cli.log import show_log
    from clipsearch.index_choice import index_folder

    _check_installed()
    from clipsearch.models.in_numpy.sealed import cache_folder
    from clipsearch.server.indexes import Indexes
    from clipsearch.server.running import Server
    from clipsearch.server.running import thumbnails as cache_of

    folders = [index_folder(given) for given in index] if index else [index_folder()]
    show_log(verbose=verbose)
    with Indexes(folders, model=model, engine=engine.value) as indexes:
        cache = cache_of(cache_folder(), thumbnails)
        server = Server(indexes, cache=cache, host=host, port=port, token=token, watch=watch)
        server.run(lambda: _announce(server, indexes, show=open_))
    return 0


def _announce(server: Server, indexes: Indexes, *, show: bool) -> None:
    """Print the address, and say what is served and to whom."""
    address = f"{server.address}?token={server.token}"
    images = sum(one.index.store.count() for one in indexes)
    names = ", ".join(one.name for one in indexes)
    say(f"Serving {plural(images, 'image')} ({names}). Open this address; Ctrl-C ends.")
    if not server.is_local:
        say(
            "Other machines can reach this address. Whoever has the token can search and see all pictures of the "
            "index, and whoever reads the traffic has the token, because it is not encrypted: use it in networks that "
            "you trust."
        )
    with writing_output():
        print(address)  # noqa: T201
    if show and typer.launch(address):
        say("No browser could be started: xdg-open is not installed, or failed.")


def _check_installed() -> None:
    """Check that the libraries of the extra are there.

    Raises:
        InputError: one is missing.
    """
    from importlib.util import find_spec

    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"{' and '.join(missing)} is not installed. Install what this command needs: "
            f"{sys.executable} -m pip install 'clipsearch[serve]'"
        )
