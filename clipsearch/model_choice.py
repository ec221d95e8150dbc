"""Decides which model to use, from an argument, settings and the index. Loads no model and opens no index."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch.errors import InputError, ModelError
from clipsearch.index.format import ModelRecord
from clipsearch.models.disk.catalog import DEFAULT
from clipsearch.search.messages import BY_DEFAULT, OF_THE_INDEX
from clipsearch.settings import wanted_model

if TYPE_CHECKING:
    from clipsearch.models.disk.files import ModelFiles


class ModelChoice:
    """The name of the model to use, and the reason."""

    def __init__(
        self,
        given: str | None,
        folders: Sequence[Path],
        known: ModelRecord | None = None,
        otherwise: tuple[str, str] | None = (DEFAULT, BY_DEFAULT),
    ) -> None:
        """Choose the model: `given`, else that of the settings, else `known`, else `otherwise`.

        Args:
            given: the name that a user or program gives.
            folders: where to look for a `clipsearch.toml`, if `CLIPSEARCH_MODEL` is not set.
            known: the model of the index.
            otherwise: a default name and the reason for it.

        Raises:
            InputError: the settings of two folders name different models, or no model is named.
        """
        from clipsearch.models.disk.names import canonical

        wanted = wanted_model(given, folders)
        self.is_asked_for = wanted is not None
        """Whether the name is from a user or from settings."""
        if wanted:
            self.name, self.why = canonical(wanted[0]), wanted[1]
        elif known:
            self.name, self.why = known.name, OF_THE_INDEX
        elif otherwise:
            self.name, self.why = canonical(otherwise[0]), otherwise[1]
        else:
            raise InputError("Which model made these vectors?", hint="name-model")
        self.revision = known.revision if known and known.name == self.name else None
        """The preferred commit on the hub, with which the index was made."""

    def made(self, index: ModelRecord) -> bool:
        """Whether an index was made with this model, by its name, by that of its commit, or by its files."""
        from clipsearch.models.disk.names import is_pinned

        return (
            self.name == index.name
            or bool(index.revision and is_pinned(self.name, index.name, index.revision))
            or self._fingerprint == index.fingerprint
        )

    def embeds_images_like(self, index: ModelRecord) -> bool:
        """Whether this model was tuned from that of an index and has vectors of its own for texts only."""
        from clipsearch.models.disk.tuned import base_of

        if self._files is None or self._fingerprint is None:
            return False
        base = base_of(self._files.folder, self._fingerprint)
        return base is not None and base.fingerprint == index.fingerprint

    @cached_property
    def _files(self) -> ModelFiles | None:
        """The files of the model; None if it is not on this disk."""
        from clipsearch.models.disk.files import find_local

        try:
            return find_local(self.name)
        except ModelError:
            return None  # there is no such model, so it is another than that of the index

    @cached_property
    def _fingerprint(self) -> str | None:
        """The fingerprint of the model; None if it is not on this disk."""
        from clipsearch.models.in_torch.loading import known_fingerprint

        return known_fingerprint(self._files.folder) if self._files else None
