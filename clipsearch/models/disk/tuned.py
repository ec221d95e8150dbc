"""The note that `tune` leaves in the folder of a model: how it was made, and from which model.

A model whose text projection alone was changed embeds images as its base does, so an index of the base answers it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

NOTE = "tuning.json"
"""The file beside the weights. No model library reads it, and it has no part in the model's fingerprint."""


@dataclass(frozen=True)
class Base:
    """The model whose image tower a tuned model has."""

    name: str
    """The name of the model, as the user would type it."""
    revision: str | None
    """Commit hash on the hub; None for others."""
    fingerprint: str


def base_of(folder: Path, fingerprint: str) -> Base | None:
    """Return the base whose image tower the model in a folder has; None if its images have vectors of their own.

    Args:
        folder: The folder of a model.
        fingerprint: The fingerprint of the files in it now. If the note is about other files, it is ignored.
    """
    try:
        note = json.loads((folder / NOTE).read_text("utf-8"))
        if note["fingerprint"] != fingerprint or not note["same_images"]:
            return None
        return Base(str(note["base"]["name"]), note["base"]["revision"], str(note["base"]["fingerprint"]))
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        return None
