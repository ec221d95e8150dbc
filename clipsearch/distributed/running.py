"""An update of an index whose images are embedded on a Ray cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Unpack

from clipsearch.api import IndexingModel
from clipsearch.distributed.cluster import connected
from clipsearch.distributed.embedding import ClusterPipeline
from clipsearch.distributed.fleet import Fleet
from clipsearch.distributed.parts import PartsRun, Shards
from clipsearch.distributed.shard_worker import ShardWorker
from clipsearch.errors import InputError
from clipsearch.index.format import ModelRecord, mismatch, missing_index
from clipsearch.index.updating import UpdateOptions, update
from clipsearch.models.encoder_options import FOR_QUERIES, EncoderOptions
from clipsearch.system.progress import SILENT, Progress

if TYPE_CHECKING:
    from clipsearch.index.format import Computed
    from clipsearch.index.models import LoadedModel
    from clipsearch.index.summary import Summary
    from clipsearch.models.disk.files import ModelFiles


class ClusterModel(IndexingModel):
    """The model of an update whose images are embedded by the workers of a cluster."""

    def __init__(self, name: str | None, *, progress: Progress = SILENT) -> None:
        """Choose as `IndexingModel` does."""
        super().__init__(name, options=FOR_QUERIES, progress=progress)
        self.used: Computed | None = None
        """How the workers compute, once they do."""

    def settle(self, folder: Path, known: ModelRecord | None, folders: Sequence[Path]) -> None:
        """Choose the model as `choose` does, for parts in `folder` that were begun with the model `known`.

        Raises:
            ModelMismatchError: it is another than the one asked for.
        """
        from clipsearch.model_choice import ModelChoice

        self.choice = ModelChoice(self._given, folders, known, self._otherwise)
        if known and self.on_disk()[1] != known.fingerprint:
            raise mismatch(folder, known, self.choice.name)

    def load(self, expected: int) -> LoadedModel:  # noqa: ARG002  (none are embedded here)
        """Load just enough to know what the model is, and save its towers in the cache for queries."""
        return super().load(0)

    def computed(self) -> Computed | None:
        """Describe how the workers compute; None if nothing was embedded."""
        return self.used

    def on_disk(self) -> tuple[ModelFiles, str]:
        """Return the files of the model, and its fingerprint.

        Raises:
            ClipsearchError: the model is not available.
        """
        from clipsearch.models.in_torch.loading import checked_fingerprint

        return self._files, checked_fingerprint(self._files)


def update_on_cluster(
    address: str,
    folder: Path,
    paths: Sequence[Path],
    model: ClusterModel,
    computing: EncoderOptions,
    *,
    progress: Progress = SILENT,
    parts: int | None = None,
    **options: Unpack[UpdateOptions],
) -> Summary:
    """Update an index as `update` does, with images embedded by workers.

    Args:
        address: HOST:PORT of the Ray cluster, or auto for that which runs on this machine.
        folder: that of the index.
        paths: the folders and files to search; without any, all roots of the index.
        model: the model.
        computing: how the workers compute.
        progress: is updated with the numbers of files found and done.
        parts: into how many parts to divide the folders, of each of which a worker makes an index of its own first;
            None to have all vectors sent to this process.
        options: see `UpdateOptions`.

    Raises:
        ClipsearchError: no cluster answers, a worker cannot do its work, or an error of `update`.
    """
    began = time.monotonic()
    shards = None if parts is None else _shards(folder, parts, paths, options)
    with connected(address, computing.device):
        done = None
        if shards is not None:
            done = _Parts(shards, model, computing, progress).make(paths, options)
        with closing(Fleet(model, computing)) as fleet:
            # After parts have been merged, this finds what has changed since they were made.
            summary = update(folder, paths, model, progress=progress, pipeline=ClusterPipeline(fleet), **options)
    if done is not None:
        summary.embedded += done.embedded
        summary.copied += done.copied
        summary.unchanged = max(0, summary.unchanged - done.embedded - done.copied)
        summary.seconds = round(time.monotonic() - began, 3)
    return summary


def _shards(folder: Path, parts: int, paths: Sequence[Path], options: UpdateOptions) -> Shards:
    """Describe the parts of an index, after checking that they can be made."""
    if options.get("part") is not None:
        raise InputError("A part of the folders is not divided into parts again.", hint="no-parts")
    shards = Shards(folder, parts)
    shards.check()
    if not paths and not shards.known()[1]:
        raise missing_index(folder)
    return shards


class _Parts(NamedTuple):
    """The parts of a new index, and what makes them."""

    shards: Shards
    model: ClusterModel
    computing: EncoderOptions
    progress: Progress

    def make(self, paths: Sequence[Path], options: UpdateOptions) -> PartsRun:
        """Have the parts made that are missing, and merge all.

        Raises:
            ClipsearchError: a part cannot be made. Those that are finished stay.
        """
        known, begun = self.shards.known()
        folders = paths or begun
        self.model.settle(self.shards.folder, known, folders)
        self.model.load(0)  # if that fails, it does before workers are started
        with closing(Fleet(self.model, self.computing, ShardWorker)) as fleet:
            run = PartsRun(self.shards, fleet, folders, self.progress)
            run.run(options)
        self.shards.merge(self.progress)
        return run
