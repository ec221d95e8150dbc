"""Imports vectors made elsewhere into an index: everything is checked before anything is written.

The model is passed in. It embeds a few of the images again, so that vectors of another model are never imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.datasets.tables import encoding_hint, path_in
from clipsearch.errors import InputError, ModelMismatchError
from clipsearch.exchange.reading import Part, open_vectors, read_about, read_paths
from clipsearch.images.files import ImageFile, Rules
from clipsearch.images.named_files import named_files
from clipsearch.index.format import ModelRecord, Record, Root, mismatch
from clipsearch.index.models import IndexModel, LoadedModel
from clipsearch.index.pipeline import decode_images, embed_images, read_images
from clipsearch.index.reading import Store
from clipsearch.index.targets import Target
from clipsearch.index.writing import Writer
from clipsearch.system.addresses import is_address, is_web
from clipsearch.system.members import on_disk, opened
from clipsearch.system.paths import absolute, is_below
from clipsearch.system.progress import Progress
from clipsearch.unit import Floats

LEAST_COSINE = 0.99
"""Least cosine of an imported vector with the one that the model makes of the image. With bf16 and faster decoding it
is 0.999 or more (docs/architecture.md)."""
_COMPARED = 8
"""Number of images that are embedded again, spread evenly over all."""
_NORM_TOLERANCE = 0.005
"""Largest accepted difference of a length from 1; bf16 rounds each component by up to 0.004."""
_BLOCK_ROWS = 4096
"""Number of vectors checked or written at a time."""


class Imported(NamedTuple):
    """The results of an import, as numbers of images."""

    imported: int
    """Images whose vector was imported."""
    known: int
    """Images that were in the index already and kept their vector."""
    skipped: list[tuple[bytes, str]]
    """Path and reason of each image that is missing or unreadable."""
    images: int
    """Images in the index now."""
    roots: list[bytes]
    """Folders that were added to the roots of the index."""
    compared: int
    """Images that were embedded again."""
    lowest_cosine: float
    """The lowest cosine of these with their imported vectors."""


class _Source(NamedTuple):
    """All vectors and names of an import, with one numbering for all files."""

    matrices: list[Floats]
    where: npt.NDArray[np.int64]
    """(N, 2) index of the matrix, and row in it, of each vector."""
    files: list[ImageFile]
    """(N,) the image of each vector, by absolute path."""

    def vectors(self, numbers: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return (B, D) normalised vectors."""
        rows = np.stack([self.matrices[matrix][row] for matrix, row in self.where[list(numbers)]]).astype(np.float64)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def import_vectors(
    folder: Path,
    parts: Sequence[Part],
    model: IndexModel,
    *,
    progress: Progress,
    start: Path,
    roots: Sequence[Path] = (),
    normalise: bool = False,
    skip_missing: bool = False,
    wait: float = 0,
    encoding: str | None = None,
) -> Imported:
    """Import vectors into an index, all of them or none.

    Args:
        folder: that of the index. It is created if it does not exist.
        parts: the files of vectors and names.
        model: the model that made the vectors.
        progress: is updated with the number of images read.
        start: the folder that relative paths in the names start from.
        roots: the folders that are added to the roots of the index; by default the common folder of all images that lie
            in no root.
        normalise: whether to normalise the vectors; otherwise they have to be unit vectors.
        skip_missing: whether to leave out images that are missing or unreadable.
        wait: for how many seconds to wait for another writer.
        encoding: as for `read_paths`.

    Raises:
        InputError: the files have wrong shapes, names, numbers or lengths, or an image is missing, unreadable, or in no
            root.
        ModelMismatchError: the vectors are not those of the model, or the index has another model.
        ClipsearchError: the model cannot be loaded, or the index cannot be written.
    """
    # The lock is taken first, so that an index that cannot be written is reported at once.
    with Writer.locked(folder, wait=wait) as writer:
        if part := writer.part():
            raise InputError(f"The index in {folder} holds part {part} of its folders only.", hint="other-part")
        # 1. Read the files of vectors and names.
        source = _opened(parts, start, normalise=normalise, encoding=encoding)
        problems = [(file.path, file.problem) for file in source.files if file.problem]
        _refuse(problems, start, skip_missing=skip_missing)
        paths = [file.path for file in source.files]
        new_roots = _new_roots(paths, [absolute(root) for root in roots], writer.roots())
        # 2. Load the model and compare it with the vectors.
        model.choose(writer, writer.bound_model(), [start])
        _check_said(writer, parts[0])
        loaded = model.load(_COMPARED)
        _check_model(writer, parts, source, loaded.record)
        cosines = _compared(source, loaded)
        # 3. Read all images.
        records = _examined(source, progress)
        problems = [(record.path, record.error) for record in records if record.error is not None]
        _refuse(problems, start, skip_missing=skip_missing)
        if len(problems) == len(records):
            raise InputError("None of the images can be read. Nothing was imported.")
        # 4. Write to the index.
        writer.set_model(loaded.record)
        imported = _written(writer, source, records)
        for root in new_roots:
            writer.set_root(root, Target(root, root, Rules()).options(readers=None, passed_over={}))
        writer.commit()
        writer.compact()
        return Imported(
            imported=imported,
            known=len(records) - len(problems) - imported,
            skipped=problems,
            images=writer.count(),
            roots=new_roots,
            compared=len(cosines),
            lowest_cosine=min(cosines),
        )


# -- the files -----------------------------------------------------------------------------------------------------


def _opened(parts: Sequence[Part], start: Path, *, normalise: bool, encoding: str | None) -> _Source:
    matrices: list[Floats] = []
    where: list[npt.NDArray[np.int64]] = []
    named: dict[bytes, None] = {}
    for number, part in enumerate(parts):
        vectors, paths = open_vectors(part.vectors), read_paths(part.names, encoding=encoding)
        if len(vectors) != len(paths):
            raise InputError(f"{part.vectors} holds {len(vectors)} vectors, and {part.names} {len(paths)} names.")
        if number and vectors.shape[1] != matrices[0].shape[1]:
            raise InputError(
                f"{part.vectors} holds vectors of {vectors.shape[1]} dimensions, {parts[0].vectors} of "
                f"{matrices[0].shape[1]}."
            )
        _check_numbers(part.vectors, vectors, normalise=normalise)
        for path in (path_in(start, path.decode("utf-8", "surrogateescape"), encoding) for path in paths):
            if path in named:
                raise InputError(f"{part.names} names {os.fsdecode(path)}, which has a vector already.")
            named[path] = None
        matrices.append(vectors)
        rows = np.arange(len(vectors))
        where.append(np.stack([np.full_like(rows, number), rows], axis=1))
    if not named:
        raise InputError(f"{' and '.join(str(part.vectors) for part in parts)}: there is not one vector.")
    return _Source(matrices, np.concatenate(where), list(named_files(named)))


def _check_numbers(path: Path, vectors: Floats, *, normalise: bool) -> None:
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = np.asarray(vectors[start : start + _BLOCK_ROWS], np.float64)
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(bad):
            raise InputError(f"{path}: row {start + bad[0]} (from 0) contains NaN or infinite numbers.")
        norms = np.linalg.norm(block, axis=1)
        empty = np.flatnonzero(norms == 0)
        if len(empty):
            raise InputError(f"{path}: row {start + empty[0]} (from 0) contains only zeros, which have no direction.")
        worst = int(np.abs(norms - 1).argmax())
        if not normalise and abs(norms[worst] - 1) > _NORM_TOLERANCE:
            raise InputError(
                f"{path}: row {start + worst} (from 0) has length {norms[worst]:.4g}; unit vectors have 1.",
                hint="normalise",
            )


def _refuse(problems: Sequence[tuple[bytes, str]], start: Path, *, skip_missing: bool) -> None:
    if problems and not skip_missing:
        path, reason = problems[0]
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise InputError(
            f"Not all images can be read: {os.fsdecode(path)}: {reason}{more}. Relative paths are taken from {start}.",
            hint=("skip-missing", *encoding_hint(path for path, _ in problems)),
        )


# -- roots ---------------------------------------------------------------------------------------------------------


def _new_roots(paths: Iterable[bytes], given: Sequence[bytes], known: Sequence[Root]) -> list[bytes]:
    """Return the folders to add to the roots of the index, so that each path lies in a root."""
    for root in given:
        if not (is_address(root) or os.path.isdir(root)):
            raise InputError(f"There is no folder {os.fsdecode(root)}.")
    tops = [*given, *(root.path for root in known)]
    outside = [path for path in paths if not any(is_below(path, top) for top in tops)]
    if outside and given:
        raise InputError(f"{os.fsdecode(outside[0])} lies in none of the folders that were named.", hint="more-roots")
    found = list(given)
    for common in _common_folders(outside):
        # The next update indexes everything in a root, so a root must not contain more than was meant.
        if os.path.dirname(common) == common or any(is_below(root.path, common) for root in known):
            raise InputError(f"The images have no folder in common but {os.fsdecode(common)}.", hint="roots")
        found.append(common)
    return [root for root in found if not any(is_below(root, other.path) for other in known)]


def _common_folders(paths: Iterable[bytes]) -> list[bytes]:
    """Return the folder that paths have in common: one on the disk, one for each bucket, and each list of addresses.

    A picture on a web server that is on no list lies in no folder, and stands for itself, as when it is indexed.
    """
    places: dict[bytes, list[bytes]] = {}
    for path in paths:
        place = b"" if not is_address(path) else on_disk(path) if is_web(path) else b"/".join(path.split(b"/")[:3])
        places.setdefault(place, []).append(os.path.dirname(path))
    found = []
    for place, folders in places.items():
        if not place:
            found.append(os.path.commonpath(folders))
        elif is_web(place):
            found.append(opened(place))
        else:
            parts = [folder.split(b"/") for folder in folders]
            same = takewhile(lambda pair: pair[0] == pair[1], zip(min(parts), max(parts), strict=False))
            found.append(b"/".join(part for part, _ in same))
    return found


# -- the model -----------------------------------------------------------------------------------------------------


def _check_said(store: Store, part: Part) -> None:
    """Check the model that the JSON beside the vectors names, before any model is loaded."""
    known, about = store.bound_model(), read_about(part.vectors)
    if known and about and known.fingerprint != about["fingerprint"]:
        raise mismatch(store.folder, known, f"{about.get('model')} (from {part.vectors.with_suffix('.json')})")


def _check_model(store: Store, parts: Sequence[Part], source: _Source, model: ModelRecord) -> None:
    known = store.bound_model()
    if known and known.fingerprint != model.fingerprint:
        raise mismatch(store.folder, known, model.name)
    dim = source.matrices[0].shape[1]
    if dim != model.dim:
        raise ModelMismatchError(
            f"{parts[0].vectors} holds vectors of {dim} dimensions; those of model {model.name} have {model.dim}.",
            hint="made-with",
        )
    for part in parts:
        about = read_about(part.vectors)
        if about and about["fingerprint"] != model.fingerprint:
            raise ModelMismatchError(
                f"{part.vectors} was made with model {about.get('model')}, as the JSON beside it says, and not with "
                f"{model.name} as it is on this disk."
            )


def _compared(source: _Source, model: LoadedModel) -> list[float]:
    """Return the cosines of a few vectors with those that the model makes of their images."""
    there = [number for number, file in enumerate(source.files) if file.problem is None]
    numbers = sorted({there[i] for i in np.linspace(0, len(there) - 1, _COMPARED).round().astype(int)} if there else ())
    vectors = {}
    with (
        closing(read_images(source.files[number] for number in numbers)) as items,
        closing(embed_images(items, model, total=len(numbers))) as batches,
    ):
        for number, item in zip(numbers, chain.from_iterable(batch.items for batch in batches), strict=True):
            if item.vector is not None:
                vectors[number] = item.vector
            elif item.record.width is not None:  # an image of which the model makes no vector
                raise InputError(f"{os.fsdecode(item.file.path)}: {item.record.error}. Nothing was imported.")
    if not vectors:
        raise InputError(
            "None of the images that the vectors were to be compared by can be read. Nothing was imported."
        )
    cosines = (np.stack(list(vectors.values())) * source.vectors(list(vectors))).sum(axis=1)
    worst = int(cosines.argmin())
    if cosines[worst] < LEAST_COSINE:
        path = os.fsdecode(source.files[list(vectors)[worst]].path)
        raise ModelMismatchError(
            f"These are not the vectors that model {model.name} makes of these images: for {path} the cosine is "
            f"{cosines[worst]:.3f}, and {LEAST_COSINE} is the least allowed. Was it another model, are names in "
            "another order, or did the image change? Nothing was imported."
        )
    return [float(cosine) for cosine in cosines]


# -- the images ----------------------------------------------------------------------------------------------------


def _examined(source: _Source, progress: Progress) -> list[Record]:
    """Read and decode each image, and return the records, in order and without rows."""
    progress.start(len(source.files))
    records = []
    with closing(read_images(source.files)) as items, closing(decode_images(items, _Unseen())) as decoded:
        for item in decoded:
            records.append(item.record)
            progress.advance(1, unreadable=item.record.error is not None)
    return records


class _Unseen:
    """A `Preprocessing` for images that only have to be decoded, at any scale."""

    enough: int | None = 1
    side: int | None = None

    def __call__(self, image: object, box: object) -> npt.NDArray[np.uint8]:  # noqa: ARG002  (as `Preprocessing`)
        """Return no pixels."""
        return np.empty((0, 0, 3), np.uint8)


# -- the index -----------------------------------------------------------------------------------------------------


def _written(writer: Writer, source: _Source, records: Sequence[Record]) -> int:
    """Add the images that the index does not have, and return their number."""
    count = 0
    for numbers in _blocks(_unknown(writer, records)):
        writer.add([records[number] for number in numbers], source.vectors(numbers))
        count += len(numbers)
    return count


def _unknown(writer: Writer, records: Sequence[Record]) -> Iterator[int]:
    for number, record in enumerate(records):
        if record.error is not None:
            continue
        known = writer.record(record.path)
        if known is None or known.row is None or known.hash != record.hash:
            yield number
        elif known != (
            own := record._replace(row=known.row)
        ):  # its time has changed, or the record is of an older format
            writer.put(own)


def _blocks(numbers: Iterator[int]) -> Iterator[list[int]]:
    block: list[int] = []
    for number in numbers:
        block.append(number)
        if len(block) == _BLOCK_ROWS:
            yield block
            block = []
    if block:
        yield block
