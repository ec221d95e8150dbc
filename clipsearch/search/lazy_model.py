"""A model whose towers are loaded when they are first needed, in NumPy or in torch.

Texts need no torch if the text tower is CLIP's or SigLIP's, and neither do a few images. The module knows nothing of
what is embedded, nor of vectors that an index has already: see `embedder`.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from clipsearch.errors import ModelError
from clipsearch.index.format import ModelRecord, mismatch
from clipsearch.index.reading import Store
from clipsearch.models.encoder_options import BY_ITSELF, FOR_QUERIES, EncoderOptions
from clipsearch.models.in_numpy import tower_cache
from clipsearch.models.in_numpy.text_tower import LIKE_CLIP, LIKE_SIGLIP
from clipsearch.models.in_numpy.tower_cache import TowerDamagedError
from clipsearch.models.in_torch.loading import checked_fingerprint, load_encoder, load_image_encoder
from clipsearch.search import messages
from clipsearch.search.encoders import TextEncoder
from clipsearch.search.engine import NO_TOWER, ImageEngine, find_tower, why_torch

if TYPE_CHECKING:
    from clipsearch.models.disk.files import ModelFiles
    from clipsearch.models.in_numpy.image_tower import ImageTower
    from clipsearch.models.in_torch.encoder import Encoder
    from clipsearch.models.in_torch.image_encoder import ImageEncoder
    from clipsearch.models.preprocessing import Preprocessing

_log = logging.getLogger(__name__)


class LazyModel:
    """One model: its names, its text tower and its image tower. It may be shared by threads."""

    def __init__(
        self,
        source: Store | ModelFiles,
        *,
        why: str | None = None,
        options: EncoderOptions = BY_ITSELF,
        expected: int = 0,
    ) -> None:
        """Describe the model; nothing is loaded yet.

        Args:
            source: The index that was made with the model, or the files of the model.
            why: The reason for the choice of this model, for the log.
            options: The device, precision and engine to compute with.
            expected: Number of images that are likely to need the model.
        """
        self._store = source if isinstance(source, Store) else None
        self._known_files = None if isinstance(source, Store) else source
        self.expected = expected
        """Number of images that are likely to need the model. It has no effect once the image tower is loaded."""
        self._logged: set[str] = set()
        """Facts about the model that were logged; each is logged once."""
        self._why = why or (messages.OF_THE_INDEX if self._store else messages.AS_ASKED_FOR)
        self.options = options
        self._engine: ImageEngine | None = None
        self._encoder_in_torch: Encoder | None = None
        self._loading = threading.RLock()
        self._loading_torch = threading.Lock()
        """A lock of its own, so that texts do not wait while torch is loaded for images."""

    @property
    def name(self) -> str:
        """The name of the model, as the user would type it."""
        return self.record.name if self.record else self._files.name

    @property
    def identity(self) -> tuple[str, str | None, str]:
        """Name, revision and fingerprint of the model, which an index records."""
        if self.record:
            return self.record.name, self.record.revision, self.record.fingerprint
        return self._files.name, self._files.revision, self.fingerprint

    @cached_property
    def record(self) -> ModelRecord | None:
        """The model that the index records, or None without an index.

        Raises:
            ModelError: the index records no model.
        """
        model = self._store.model() if self._store else None
        if self._store and model is None:
            raise ModelError(f"The index in {self._store.folder} names no model.", hint="index-anew")
        return model

    def log_once(self, *facts: str) -> None:
        """Log facts about the model that were not logged before, and its name before the first."""
        name, revision = (self.record or self._files).name, (self.record or self._files).revision
        for fact in (messages.model_used(name, revision, self._why), *facts):
            if fact not in self._logged:
                self._logged.add(fact)
                _log.info(fact)

    @cached_property
    def fingerprint(self) -> str:
        """The hash of weights, configuration, tokenizer and preprocessing."""
        if self.record:
            return self.record.fingerprint
        return checked_fingerprint(self._files)

    @property
    def files(self) -> ModelFiles:
        """The files of the model on this disk.

        Raises:
            ModelError: the model is not on this disk and cannot be downloaded.
            ModelMismatchError: the model of this name on this disk is not the one that the index was made with.
        """
        self._check_same(checked_fingerprint(self._files))
        return self._files

    def _check_same(self, fingerprint: str) -> None:
        if self._store and self.record and fingerprint != self.record.fingerprint:
            raise mismatch(self._store.folder, self.record, f"{self.name} as it is on this disk now")

    @cached_property
    def _files(self) -> ModelFiles:
        if self._known_files:
            return self._known_files
        from clipsearch.models.disk.files import locate

        revision = self.record.revision if self.record else None
        return locate(self.name, revision=revision)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of images, which needs no torch."""
        from clipsearch.models.preprocessing import Preprocessing

        if self._tower:
            return self._tower.preprocessing
        return replace(Preprocessing.load(self._files), exact=self.options.exact)

    @property
    def text_encoder(self) -> TextEncoder:
        """The text tower: in NumPy if its architecture is supported there, else in torch."""
        with self._loading:
            return self._text_tower

    @property
    def encoder(self) -> ImageEngine | Encoder:
        """The image tower, in NumPy or in torch."""
        if self._engine:
            return self._engine  # without the lock, which a thread that loads torch may hold
        with self._loading:
            if self._encoder_in_torch and self.options.engine != "numpy":
                return self._encoder_in_torch
            tower = self._tower
            if tower is None:
                encoder = self._whole_model
                self.log_once(f"engine: torch ({why_torch(self.options) or NO_TOWER})")
                return encoder
            if self._engine is None:
                self._engine = ImageEngine(tower, self.images_in_torch, options=self.options, expected=self.expected)
                self.log_once(f"fingerprint: {self.fingerprint}", *self._engine.facts(self.fingerprint))
            return self._engine

    def images_in_torch(self) -> ImageEncoder:
        """Load the image tower in torch; the whole model if its inputs have different shapes, as in transformers."""
        if self._tower is None or self._tower.preprocessing.seen is None:
            return self._whole_model
        encoder = load_image_encoder(self.name, self._tower, self.options)
        self.log_once(*messages.how_it_computes(encoder, self._device_reason))
        return encoder

    @property
    def _device_reason(self) -> str | None:
        return "enough for a query" if self.options is FOR_QUERIES else None

    @property
    def numpy_tower(self) -> ImageTower:
        """The image tower in NumPy.

        Raises:
            ModelError: NumPy cannot compute it, or not as the options want it.
        """
        if why := why_torch(self.options):
            hint = "engine" if self.options.engine == "torch" else "processor"
            raise ModelError(f"Single layers are computed in NumPy only, and here torch computes: {why}.", hint=hint)
        if self._tower is None:
            raise ModelError(
                f"NumPy cannot compute single layers of model {self.name!r}: {NO_TOWER}.", hint="list-models"
            )
        return self._tower

    @cached_property
    def _tower(self) -> ImageTower | None:
        return find_tower(self.name, self.fingerprint, lambda: self._files, self.options)

    @cached_property
    def _text_tower(self) -> TextEncoder:
        """The text tower from the cache; on first use it is made there from the model's weights.

        A text tower that is neither CLIP's nor SigLIP's is computed by transformers, which has to be loaded for every
        query.
        """
        try:
            tower = tower_cache.load(self.fingerprint)
        except TowerDamagedError as error:
            if not self._known_files:
                messages.check_replaceable(self.name, self.record.revision if self.record else None, error)
            _log.warning(tower_cache.made_anew(self.name, str(error)))
        else:
            if tower:
                self.log_once(f"fingerprint: {self.fingerprint}", messages.texts_in_numpy(self.fingerprint))
                return tower
            from clipsearch.models.disk.files import family

            if family(self._files) in (*LIKE_CLIP, *LIKE_SIGLIP):
                _log.warning(messages.PREPARING, self.name)
        if not self._save_text_tower():
            _log.warning(messages.WHOLE_MODEL_NEEDED, self.name)
            self.log_once("texts: in the whole model, through transformers")
            return self._whole_model
        tower = tower_cache.load(self.fingerprint)
        if tower is None:
            raise ModelError(f"The text tower of {self.name!r} vanished from the cache.")
        self.log_once(messages.texts_in_numpy(self.fingerprint))
        return tower

    def _save_text_tower(self) -> bool:
        """Save the text tower in the cache, without torch if possible; False if it is not supported in NumPy."""
        # With files of another model than that of the index, loading the whole model raises the error that says so.
        is_same = self._encoder_in_torch is None and checked_fingerprint(self._files) == self.fingerprint
        if is_same and tower_cache.make(self.fingerprint, self._files):
            return True
        return self._whole_model.save_text_tower()

    def keep_towers(self) -> bool:
        """Save both towers in the cache for later commands, and replace damaged ones.

        Returns:
            False if the text tower is not supported in NumPy.

        Raises:
            ModelError: the model cannot be loaded, or the cache cannot be written.
        """
        from clipsearch.models.in_numpy import image_cache  # imports Pillow

        if found := tower_cache.damage(self.fingerprint):
            _log.warning(tower_cache.made_anew(self.name, found))
        possible = tower_cache.is_whole(self.fingerprint) or self._save_text_tower()
        image_cache.save(self.fingerprint, self._files)
        return possible

    @property
    def _whole_model(self) -> Encoder:
        """The model with both towers, in torch.

        Raises:
            ModelError: the model is not on this disk and cannot be downloaded, or cannot be loaded.
            ModelMismatchError: the model of this name on this disk is not the one that the index was made with.
        """
        with self._loading_torch:
            if self._encoder_in_torch is None:
                self._encoder_in_torch = self._loaded()
            return self._encoder_in_torch

    def _loaded(self) -> Encoder:
        encoder = load_encoder(self._files, self.options)
        self._check_same(encoder.fingerprint)
        self.log_once(*messages.encoder_loaded(encoder, self._device_reason))
        return encoder
