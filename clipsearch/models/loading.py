"""How an `Encoder` is loaded, with all that it imports. Imports none of that itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from clipsearch.models.encoder import Encoder
    from clipsearch.models.files import ModelFiles


class Options(TypedDict):
    """How an `Encoder` is to work."""

    device: str
    precision: str
    batch_size: int | None
    exact: bool


BY_ITSELF = Options(device="auto", precision="auto", batch_size=None, exact=False)
"""It decides."""
FOR_QUERIES = Options(device="cpu", precision="auto", batch_size=None, exact=False)
"""A query has a picture or two."""


def load_encoder(files: ModelFiles, options: Options) -> Encoder:
    """The model in `files`. Its weights are hashed while Python imports torch and transformers, which takes longer.

    Raises:
        ClipsearchError: the model or the device cannot be had.
    """
    from clipsearch.models.files import fingerprint

    with ThreadPoolExecutor(1) as pool:
        hashed = pool.submit(fingerprint, files.folder)
        from clipsearch.models.encoder import Encoder

        return Encoder(files, **options, known_fingerprint=hashed.result())
