"""`clipsearch status`."""

from __future__ import annotations

import os
from contextlib import closing

from clipsearch.cli.options import IndexOption, JsonOption, say


def status(*, index: IndexOption = None, json: JsonOption = False) -> None:
    """Show what an index holds: model, roots, images, unreadable files, dead rows, size."""
    from clipsearch.api import index_folder
    from clipsearch.models.catalog import BUNDLED, PICTUREBOOK_NOTE
    from clipsearch.output.reports import status_json, status_text
    from clipsearch.store import Store

    with closing(Store.open(index_folder(index))) as store:
        model, contents, roots = store.model(), store.contents(), store.roots()
        store.matrix()  # a missing or short matrix is an error here too
        folder = os.fsencode(store.folder.absolute())
    print(status_json(model, contents, roots) if json else status_text(folder, model, contents, roots))  # noqa: T201
    if model and model.name == BUNDLED and not json:
        say(f"Note: {PICTUREBOOK_NOTE}")
