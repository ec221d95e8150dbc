"""`clipsearch forget`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipsearch.cli.options import IndexOption, WaitOption, say


def forget(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help="Indexed folders or files, as `clipsearch status` names them.", show_default=False
        ),
    ],
    *,
    index: IndexOption = None,
    wait: WaitOption = 0,
) -> None:
    """Drop folders from the index. The pictures themselves are not touched."""
    from clipsearch.index.reading import Store
    from clipsearch.index.writing import Writer
    from clipsearch.index_choice import index_folder
    from clipsearch.output.paths import printable, shown
    from clipsearch.system.counting import plural
    from clipsearch.system.paths import absolute

    folder = index_folder(index)
    Store.open(folder).close()  # raises an error if there is no index, which `locked` would create
    roots = [absolute(path) for path in paths]
    with Writer.locked(folder, wait=wait) as writer:
        for root, images in zip(roots, writer.forget(roots), strict=True):
            say(f"Forgot {printable(shown(root)) or '.'}: {plural(images, 'image')}. The files are untouched.")
