"""Image towers in the user's cache, beside the text towers: one folder for each model's fingerprint.

A folder holds the weights as a safetensors file that is memory-mapped, and a small description with the preprocessing,
so an image is embedded without the model's own files. `index` writes it; where it is missing it is made from the
model's files, without a model library. `sealed` makes sure that a damaged tower is never used.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from clipsearch.models.disk.files import ModelFiles
from clipsearch.models.in_numpy import extraction, sealed
from clipsearch.models.in_numpy.image_tower import ImageShape, ImageTower
from clipsearch.models.preprocessing import Preprocessing
from clipsearch.system.failures import is_shortage

_log = logging.getLogger(__name__)

_LAYOUT = 1
_WEIGHTS, _SHAPE = "image_tower.safetensors", "image_tower.json"
_NEEDED = frozenset({_WEIGHTS, _SHAPE})


def image_tower_folder(fingerprint: str) -> Path:
    """Return the folder for the image tower of a model, whether it exists or not."""
    return sealed.cache_folder() / f"image-towers-{_LAYOUT}" / fingerprint


def damage(fingerprint: str, *, thorough: bool = False) -> str | None:
    """Return what is wrong with the image tower in the cache; None if nothing is, or if there is none.

    `thorough` is that of `sealed.damage`.
    """
    return sealed.damage(image_tower_folder(fingerprint), _NEEDED, thorough=thorough)


def load(fingerprint: str, *, exact: bool = False) -> ImageTower | None:
    """Load the image tower of the model with this fingerprint; return None if it is missing or damaged.

    `exact` turns off shortcuts when images are decoded and resized.
    """
    folder = image_tower_folder(fingerprint)
    if not os.path.lexists(folder) or damage(fingerprint):
        return None
    try:
        described = json.loads((folder / _SHAPE).read_text("utf-8"))
        preprocessing = replace(Preprocessing.from_json(described["preprocessing"]), exact=exact)
        weights = sealed.map_safetensors(folder / _WEIGHTS)
        return ImageTower(weights, ImageShape(**described["tower"]), preprocessing)
    except Exception as error:  # anything may be missing in files of another version
        if is_shortage(error):
            raise
        sealed.condemn(folder)
        return None


def save(fingerprint: str, files: ModelFiles) -> bool:
    """Write the image tower of a model to the cache, unless it is there; return False if NumPy cannot compute it.

    It is made from the model's own files, which have to be those of the `fingerprint`. Replacing a damaged tower is
    logged.

    Raises:
        ModelError: the model's files cannot be read, or the cache cannot be written.
    """
    folder = image_tower_folder(fingerprint)
    found = damage(fingerprint)
    if found is None and os.path.lexists(folder):
        return True
    extracted = extraction.image_tower(files)
    if extracted is None:
        return False
    weights, shape = extracted
    preprocessing = Preprocessing.load(files)
    seen = preprocessing.seen
    if seen and not ImageTower(weights, shape, preprocessing).sees(*seen):
        return False
    if found:
        _log.warning(
            "The image tower of model %r in the cache is damaged (%s); it is made anew from the model.",
            files.name,
            found,
        )
    from safetensors.numpy import save_file

    description: dict[str, Any] = {"tower": asdict(shape), "preprocessing": preprocessing.to_json()}

    def fill(made: Path) -> None:
        save_file({name: np.ascontiguousarray(array) for name, array in weights.items()}, made / _WEIGHTS)
        (made / _SHAPE).write_text(json.dumps(description, indent=1), "utf-8")

    sealed.write(folder, _NEEDED, "the image tower", fill)
    return True
