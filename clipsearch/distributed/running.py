"""An update of an index whose images are embedded on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from clipsearch.api import IndexingModel
from clipsearch.distributed.cluster import connected
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
        options: see `UpdateOptions`.

    Raises:
        ClipsearchError: no cluster answers, a worker cannot do its work, or an error of `update`.
    """
    from clipsearch.distributed.embedding import ClusterPipeline
    from clipsearch.distributed.fleet import Fleet

    with connected(address, computing.device), closing(Fleet(model, computing)) as fleet:
        pipeline = ClusterPipeline(fleet)
        return update(folder, paths, model, progress=progress, pipeline=pipeline, **options)
