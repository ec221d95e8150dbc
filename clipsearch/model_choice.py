"""Which model is meant: the one place that decides. Loads none, opens no index, and knows only folders it is given."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from clipsearch.errors import InputError, ModelError
from clipsearch.index.format import ModelRecord
from clipsearch.models.disk.catalog import DEFAULT
from clipsearch.search.messages import OF_THE_INDEX
from clipsearch.settings import wanted_model

BY_DEFAULT = "the default"
"""Why a model is used that nobody asked for."""


class ModelChoice:
    """The name of a model, and why it is that."""

    def __init__(
        self,
        given: str | None,
        folders: Sequence[Path],
        known: ModelRecord | None = None,
        otherwise: tuple[str, str] | None = (DEFAULT, BY_DEFAULT),
    ) -> None:
        """`given`, else `CLIPSEARCH_MODEL` or a `clipsearch.toml` near `folders`, else `known`, else `otherwise`.

        `known` is the model of an index, `otherwise` a name and why it is that.

        Raises:
            InputError: the settings of two folders name different models, or there is no model to choose.
        """
        from clipsearch.models.disk.names import canonical

        wanted = wanted_model(given, folders)
        self.is_asked_for = wanted is not None
        """Whether a user or settings ask for it."""
        if wanted:
            self.name, self.why = canonical(wanted[0]), wanted[1]
        elif known:
            self.name, self.why = known.name, OF_THE_INDEX
        elif otherwise:
            self.name, self.why = canonical(otherwise[0]), otherwise[1]
        else:
            raise InputError("Which model made these vectors?", hint="name-model")
        self.revision = known.revision if known and known.name == self.name else None
        """The commit on the hub that is preferred: the one that the index was made with."""

    def made(self, index: ModelRecord) -> bool:
        """Whether an index was made with it, under whichever name: this one, that of a commit, or of the same files."""
        from clipsearch.models.disk.names import is_pinned

        return (
            self.name == index.name
            or bool(index.revision and is_pinned(self.name, index.name, index.revision))
            or self._fingerprint == index.fingerprint
        )

    @cached_property
    def _fingerprint(self) -> str | None:
        """None if the model is not on this disk."""
        from clipsearch.models.disk.files import find_local, fingerprint

        try:
            files = find_local(self.name)
        except ModelError:
            return None  # there is no such model; that it is another one says enough
        return fingerprint(files.folder) if files else None
