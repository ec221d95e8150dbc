"""clipsearch: find pictures in folders by what they show.

>>> import clipsearch
>>> index = clipsearch.open_index("photos")           # doctest: +SKIP
>>> index.search("a dog is sleeping", k=3)[0].path    # doctest: +SKIP

The names below are imported on first use, so that `import clipsearch` costs nothing and loads no model library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipsearch.api import build_index, load_model, open_index
    from clipsearch.errors import ClipsearchError
    from clipsearch.functions.images import classify, hidden_states, score
    from clipsearch.functions.indexes import caption_ranks, cluster, delete_duplicates, duplicates
    from clipsearch.functions.models import evaluate, imagine, tune
    from clipsearch.functions.vectors import export_vectors, import_vectors, merge_indexes
    from clipsearch.images.codecs.box import Box
    from clipsearch.images.files import Rules
    from clipsearch.models.encoder_options import EncoderOptions
    from clipsearch.search.embedder import Embedder
    from clipsearch.search.hit import Hit
    from clipsearch.search.index import Index, Searcher
    from clipsearch.search.ordering import group_hits, sort_hits
    from clipsearch.search.query_terms import ContentTerm, ImageTerm, TextTerm
    from clipsearch.several_indexes import open_indexes
    from clipsearch.system.progress import Progress

__all__ = [
    "Box",
    "ClipsearchError",
    "ContentTerm",
    "Embedder",
    "EncoderOptions",
    "Hit",
    "ImageTerm",
    "Index",
    "Progress",
    "Rules",
    "Searcher",
    "TextTerm",
    "__version__",
    "build_index",
    "caption_ranks",
    "classify",
    "cluster",
    "delete_duplicates",
    "duplicates",
    "evaluate",
    "export_vectors",
    "group_hits",
    "hidden_states",
    "imagine",
    "import_vectors",
    "load_model",
    "merge_indexes",
    "open_index",
    "open_indexes",
    "score",
    "sort_hits",
    "tune",
]
__version__ = "0.1.0"

_HOMES = {
    "Box": "clipsearch.images.codecs.box",
    "ClipsearchError": "clipsearch.errors",
    "ContentTerm": "clipsearch.search.query_terms",
    "Hit": "clipsearch.search.hit",
    "ImageTerm": "clipsearch.search.query_terms",
    "Index": "clipsearch.search.index",
    "Searcher": "clipsearch.search.index",
    "Progress": "clipsearch.system.progress",
    "TextTerm": "clipsearch.search.query_terms",
    "Embedder": "clipsearch.search.embedder",
    "EncoderOptions": "clipsearch.models.encoder_options",
    "Rules": "clipsearch.images.files",
    "build_index": "clipsearch.api",
    "group_hits": "clipsearch.search.ordering",
    "sort_hits": "clipsearch.search.ordering",
    "load_model": "clipsearch.api",
    "open_index": "clipsearch.api",
    "open_indexes": "clipsearch.several_indexes",
    **dict.fromkeys(("classify", "hidden_states", "score"), "clipsearch.functions.images"),
    **dict.fromkeys(("caption_ranks", "cluster", "delete_duplicates", "duplicates"), "clipsearch.functions.indexes"),
    **dict.fromkeys(("evaluate", "imagine", "tune"), "clipsearch.functions.models"),
    **dict.fromkeys(("export_vectors", "import_vectors", "merge_indexes"), "clipsearch.functions.vectors"),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  (a module attribute can be anything)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
