"""Opens several indexes of the same model together, so that they are searched as if they were one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from clipsearch.api import INDEX_USED, embedder_for, for_queries, open_at, warn_if_unfinished
from clipsearch.errors import IndexUnfinishedError, ModelMismatchError
from clipsearch.index.reading import Store
from clipsearch.index_choice import index_folders
from clipsearch.search.index import Searcher

_log = logging.getLogger(__name__)


def open_indexes(folders: Iterable[str | os.PathLike[str]], *, model: str | None = None) -> Searcher:
    """Open several indexes of the same model, which are searched as if they were one.

    Args:
        folders: index folders, or patterns such as "shards/*".
        model: the folder of a model that `tune` made; as for `open_index`.

    Returns:
        A searcher with the methods `search`, `search_many`, `similar` and `close`. It is a context manager.

    Raises:
        ModelMismatchError: the indexes are of different models, or `model` was not made from theirs.
        ClipsearchError: one of them is missing or cannot be read, or none holds an image yet.
    """
    return open_all(index_folders(folders), model)


def open_all(folders: Sequence[Path], model: str | None = None, *, engine: str = "auto") -> Searcher:
    """Open the indexes in exactly these folders, as `open_indexes` does; `engine` is as in `EncoderOptions`."""
    if len(folders) == 1:
        return open_at(folders[0], model, engine=engine)
    with ExitStack() as opened:
        stores = [opened.enter_context(closing(Store.open(folder))) for folder in folders]
        filled = [store for store in stores if _has_images(store)]
        for store in filled:
            _check_same_model(filled[0], store)
            _log.info(INDEX_USED, store.folder)
        searched = filled or stores[:1]
        searcher = Searcher(searched, embedder_for(searched[0], model, for_queries(engine)))
        opened.pop_all()
    for store in stores:
        if store not in searched:
            store.close()
    return searcher


def _has_images(store: Store) -> bool:
    """Whether an index has images to be searched; warn if it is incomplete."""
    try:
        warn_if_unfinished(store)
    except IndexUnfinishedError as error:
        _log.warning("%s", error, extra={"hint": next(iter(error.hints), None), "facts": error.facts})
        return False
    return store.committed_rows() > 0


def _check_same_model(first: Store, store: Store) -> None:
    known, other = first.model(), store.model()
    if known and other and known.fingerprint != other.fingerprint:
        raise ModelMismatchError(
            f"The index in {store.folder} was made with model {other.name}, that in {first.folder} with {known.name}: "
            "their vectors cannot be compared.",
            hint="leave-index-out",
        )
