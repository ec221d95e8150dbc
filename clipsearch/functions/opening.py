"""The model that a caller of a function names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from clipsearch.api import load_model
from clipsearch.search.embedder import Embedder


@contextmanager
def opened(model: str | Embedder | None) -> Iterator[Embedder]:
    """Open the named model and close it at the end, or yield the one that is passed in."""
    if isinstance(model, Embedder):
        yield model
        return
    with load_model(model) as embedder:
        yield embedder
