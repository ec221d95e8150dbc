"""Vectors that are written for other programs, or come from them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch.api import IndexingModel
from clipsearch.index_choice import index_folder, index_folders
from clipsearch.search.index import Index
from clipsearch.system.paths import absolute
from clipsearch.system.places import current_folder
from clipsearch.system.progress import SILENT, Progress

if TYPE_CHECKING:
    from typing import Unpack

    from clipsearch.exchange.importing import Imported
    from clipsearch.exchange.merging import Merged
    from clipsearch.index.filters import FilterArguments


def export_vectors(
    index: Index,
    target: str | os.PathLike[str],
    *,
    names: str = "csv",
    dtype: str = "float32",
    replace: bool = False,
    **filters: Unpack[FilterArguments],
) -> tuple[int, int]:
    """Write the vectors of an index to a .npy file, and the records of the images to another file beside it.

    Args:
        index: an opened index.
        target: FILE.npy, or a folder, in which the files get default names.
        names: csv, jsonl or parquet: the format of the file beside it, with a row for each vector.
        dtype: float32, or float16 as in the index.
        replace: whether to replace existing files.
        filters: which images are exported; as for `Index.search`.

    Returns:
        (N, D), the shape of the vectors; if no image fulfils the filters, N is 0 and no file is written.

    Raises:
        InputError: a file exists already or cannot be written, or an argument is invalid.
        IndexDamagedError: the index contradicts itself.
    """
    from clipsearch.exchange.exporting import export

    return export(index.store, Path(target), names=names, dtype=dtype, replace=replace, **filters)


def merge_indexes(
    indexes: Iterable[str | os.PathLike[str]],
    folder: str | os.PathLike[str] | None = None,
    *,
    roots: Mapping[str, str] | None = None,
    partial: bool = False,
    any_precision: bool = False,
    codes: bool = False,
    progress: Progress = SILENT,
) -> Merged:
    """Make one index of several, such as those of the parts of a folder, as a whole or not at all.

    Args:
        indexes: index folders, or patterns such as "shards/*".
        folder: the new index folder, which must not exist; by default .clipsearch in the current folder.
        roots: new paths of folders, by their old ones, for indexes from machines where they are mounted elsewhere.
        partial: whether parts may be missing; otherwise that is an error.
        any_precision: whether the indexes may have been computed in different precisions; otherwise that is an error.
        codes: whether the new index gets short codes, for approximate searches.
        progress: is updated with the number of rows copied.

    Returns:
        The numbers of `indexes`, `images` and others, and the `missing` parts.

    Raises:
        InputError: the indexes do not fit together, or `folder` exists.
        ModelMismatchError: they are of different models.
        ClipsearchError: one of them is missing, incomplete or being written, or `folder` cannot be written.
    """
    from clipsearch.exchange.merging import merge

    return merge(
        index_folders(indexes),
        index_folder(folder, may_be_new=True),
        moved=[(absolute(old), absolute(new)) for old, new in (roots or {}).items()],
        partial=partial,
        any_precision=any_precision,
        codes=codes,
        progress=progress,
    )


def import_vectors(
    vectors: str | os.PathLike[str],
    names: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    *,
    model: str | None = None,
    roots: Iterable[str | os.PathLike[str]] = (),
    normalise: bool = False,
    skip_missing: bool = False,
    encoding: str | None = None,
    wait: float = 0,
    progress: Progress = SILENT,
) -> Imported:
    """Import vectors that were made elsewhere into an index, all of them or none.

    Args:
        vectors: a .npy file with an (N, D) array, or the output folder of `clip-retrieval inference`.
        names: a file with the path of the image of each vector; None for the output of clip-retrieval.
        folder: the index folder, which is made if it does not exist; by default .clipsearch in the current folder.
        model: the name of the model that made the vectors; by default that of the settings, of the index, or of the
            JSON file beside the vectors.
        roots: the folders that are added to the roots of the index; by default the common folder of all images.
        normalise: scale the vectors to length 1; otherwise another length is an error.
        skip_missing: leave out images that are missing or unreadable; otherwise they are an error.
        encoding: that of `names` if it is neither UTF-8 nor has a byte order mark.
        wait: for how many seconds to wait for another writer.
        progress: is updated with the number of images read.

    Returns:
        The numbers of images that were imported, known and left out, and the least cosine of some of the vectors with
        those that the model makes.

    Raises:
        InputError: a file has wrong content, or an image is missing or unreadable.
        ModelMismatchError: the vectors are not those of the model, or the index has another model.
        ModelError: the model is not available.
    """
    from clipsearch.exchange import importing
    from clipsearch.exchange.reading import Part, clip_retrieval_parts, model_named

    parts = clip_retrieval_parts(Path(vectors)) if names is None else [Part(Path(vectors), Path(names))]
    return importing.import_vectors(
        index_folder(folder, may_be_new=True),
        parts,
        IndexingModel(model, otherwise=model_named(parts[0].vectors), progress=progress),
        progress=progress,
        start=current_folder(),
        roots=[Path(root) for root in roots],
        normalise=normalise,
        skip_missing=skip_missing,
        wait=wait,
        encoding=encoding,
    )
