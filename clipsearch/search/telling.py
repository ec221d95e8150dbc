"""What was chosen and why, in words: what `--verbose` says and `status` shows, a line for each fact.

Knows nothing of how anything is chosen, and loads nothing heavy.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch.index.format import Computed
from clipsearch.models.disk.catalog import BUNDLED

if TYPE_CHECKING:
    from clipsearch.models.in_torch.encoder import Encoder

OF_THE_INDEX = "that of the index"
BY_DEFAULT = "the default"
AS_ASKED_FOR = "as asked for"


def index_used(folder: Path) -> str:
    """An index that is there."""
    return f"index: {folder}"


def index_not_used(folder: Path, model: str | None) -> str:
    """An index that is there, but whose vectors are of no use here."""
    return f"index: {folder} is not used, for {f'its model is {model}' if model else 'it has no model yet'}"


def index_missing() -> str:
    """There is none, and none is needed."""
    return "index: none here or above"


def index_to_be_made(folder: Path) -> str:
    """There is none yet."""
    return f"index: {folder} (to be made)"


def index_without_images(folder: Path, *, at_work: bool) -> str:
    """An index whose first run has recorded nothing yet, or was ended before it did."""
    if at_work:
        return f"The index in {folder} is being built, and there is no image in it yet. Try again in a moment."
    return (
        f"The index in {folder} holds no image: the run that was to make it was ended at its beginning. Go on with it: "
        f"clipsearch index PATH (or delete {folder})"
    )


def index_unfinished(folder: Path, images: int, *, at_work: bool) -> str:
    """An index that holds a part of what it will."""
    if at_work:
        return f"The index in {folder} is being built: {images} images so far."
    return (
        f"The index in {folder} is not complete: the run that makes it was ended, with {images} images so far. Go on "
        "with it: clipsearch index"
    )


def model_used(name: str, revision: str | None, why: str) -> str:
    """A model: its name, where it comes from, and who chose it."""
    origin = ""
    if revision:
        from clipsearch.models.disk.names import repository_of

        origin = f" ({repository_of(name)} at {revision})"
    return f"model: {name}{' (bundled with clipsearch)' if name == BUNDLED else origin}, {why}"


def model_not_needed(name: str) -> str:
    """A model that an `index` run could do without."""
    return f"model: {name}, not loaded: there was nothing to embed"


def fingerprint_of_model(fingerprint: str) -> str:
    """The hash of all that decides its vectors."""
    return f"fingerprint: {fingerprint}"


def texts_in_numpy(folder: Path) -> str:
    """How texts become vectors: in the text tower that lies in `folder`."""
    return f"texts: in the text tower, without torch, from {folder}"


def texts_in_transformers() -> str:
    """How texts become vectors where there is no such tower."""
    return "texts: in the whole model, through transformers"


def whole_model_needed(name: str) -> str:
    """What is said of a model whose text tower `text_tower` cannot compute."""
    return (
        f"The text tower of model {name!r} is neither CLIP's nor SigLIP's, so every query has to load the whole model."
    )


def picture_known() -> str:
    """A picture that needs no model."""
    return "picture: known to the index, so it needs no model"


def picture_damaged(path: bytes, share: float) -> str:
    """A picture of a query of which a part is missing; without a path it came from standard input."""
    from clipsearch.images.shares import missing  # no text query needs it

    return f"Damaged: {os.fsdecode(path) or 'standard input'}: {missing(share)}"


def pictures_known(known: int, pictures: int) -> str:
    """How many pictures needed no model."""
    return f"pictures: {known} of {pictures} known to the index"


def encoder_loaded(encoder: Encoder, device_reason: str | None = None) -> list[str]:
    """A model that is loaded whole: where its files are, and how it computes. `device_reason` beats its own."""
    return [
        f"files: {encoder.folder}",
        fingerprint_of_model(encoder.fingerprint),
        f"device: {encoder.device} ({device_reason or encoder.device_reason})",
        f"precision: {encoder.precision} ({encoder.precision_reason})",
    ]


def computed_by(encoder: Encoder) -> Computed:
    """How a model computes, for an index to remember."""
    return Computed(str(encoder.device), encoder.device_reason, encoder.precision, encoder.precision_reason)
