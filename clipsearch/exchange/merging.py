"""Merges indexes, such as those of the parts of a folder, into a new one: all is checked before anything is written.

The module knows nothing of how an index is stored; `index.joining` copies records and rows.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

from clipsearch.errors import IndexUnfinishedError, InputError
from clipsearch.images.files import Rules
from clipsearch.images.parts import Part
from clipsearch.index.code_file import codes_record
from clipsearch.index.format import FINISHED, FORMAT, Folder, ModelRecord, Root, mismatch
from clipsearch.index.joining import About, Joining
from clipsearch.index.locking import without_writers
from clipsearch.index.path_rewriting import Moved
from clipsearch.index.reading import Store
from clipsearch.index.writing import Writer
from clipsearch.system.members import MARK
from clipsearch.system.paths import inside, is_below, same_place
from clipsearch.system.progress import SILENT, Progress

_MOST_ROWS_WITH_REGIONS = 2**31 - 1
"""Regions store the row of their image in 32 bits."""
_COUNTED = ("embedded", "reused", "moved", "removed")


class Merged(NamedTuple):
    """The results of merging, mostly as numbers."""

    indexes: int
    images: int
    """Images in the new index."""
    unreadable: int
    """Files and folders in it that could not be read."""
    same: int
    """Records that several of the indexes had, with the same content."""
    regions: int | None
    """Regions in it, also of images that are gone; None without regions."""
    dead_rows: int
    missing: list[Part]
    """The parts that no index holds; empty if the indexes are of whole folders."""
    seconds: float


class _Shard(NamedTuple):
    """One of the indexes."""

    store: Store
    rows: int
    model: ModelRecord | None
    part: Part | None
    roots: list[Root]
    """Its roots, with their paths in the new index."""
    precision: str | None
    """How its last vectors were computed; None if it is unknown."""

    @property
    def folder(self) -> Path:
        return self.store.folder


def merge(
    folders: Sequence[Path],
    out: Path,
    *,
    moved: Sequence[tuple[bytes, bytes]] = (),
    partial: bool = False,
    any_precision: bool = False,
    codes: bool = False,
    progress: Progress = SILENT,
) -> Merged:
    """Make a new index of others, or nothing at all.

    Args:
        folders: those of the indexes.
        out: that of the new index. It must not exist, unless it is empty.
        moved: old and new path (absolute) of folders that the new index knows under another path.
        partial: whether parts of a folder may be missing.
        any_precision: whether the indexes may have been computed in different precisions.
        codes: whether the new index gets short codes; those of the others are not taken over.
        progress: is updated with the number of rows copied.

    Raises:
        InputError: the indexes do not fit together, or `out` exists.
        ModelMismatchError: they are of different models.
        IndexLockedError: one of them, or `out`, is being written.
        IndexUnfinishedError: one is not complete.
        ClipsearchError: one cannot be read, or `out` cannot be written.
    """
    started = time.monotonic()
    _check_out(out)
    # The path of an archive means its inside as well.
    renamed = [Moved(old + mark, new + mark) for old, new in moved for mark in (b"", MARK)]
    with ExitStack() as held:
        # 1. Open and check all of them, and keep writers away.
        shards = [_opened(folder, renamed, held) for folder in _each_once(folders)]
        _check_moved(moved, [root.path for shard in shards for root in shard.store.roots()])
        missing = _missing_parts(shards)
        if missing and not partial:
            names = ", ".join(map(str, missing))
            raise InputError(f"Missing: part {names}.", hint="missing-parts", part=str(missing[0]))
        about = _about(shards, renamed, any_precision=any_precision)
        # 2. Copy them.
        progress.start(sum(shard.rows for shard in shards))
        with Joining.at(out, about) as joining:
            joining.add([shard.store for shard in shards], renamed, progress)
    if codes:
        with Writer.locked(out) as writer:
            writer.want_codes(wanted=True)
            writer.make_codes()
    with closing(Store.open(out)) as store:
        contents, unreadable = store.contents(), len(store.unreadable())
    return Merged(
        indexes=len(shards),
        images=contents.images,
        unreadable=unreadable,
        same=joining.same,
        regions=contents.regions,
        dead_rows=contents.dead_rows,
        missing=missing,
        seconds=round(time.monotonic() - started, 3),
    )


# -- each index by itself ------------------------------------------------------------------------------------------


def _check_out(out: Path) -> None:
    if os.path.lexists(out) and not (out.is_dir() and not out.is_symlink() and not any(out.iterdir())):
        what = "holds an index already" if Store.exists(out) else "exists already"
        raise InputError(f"{out} {what}; merging makes a new one.", hint="other-out", folder=out)


def _each_once(folders: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for folder in folders:
        if not any(same_place(os.fsencode(folder), os.fsencode(other)) for other in found):
            found.append(folder)
    return found


def _opened(folder: Path, moved: Sequence[Moved], held: ExitStack) -> _Shard:
    """Open an index, keep writers away as long as it is `held`, and check it by itself."""
    store = held.enter_context(closing(Store.open(folder)))
    held.enter_context(without_writers(folder))
    if store.format() < FORMAT:
        raise InputError(f"The index in {folder} has the older format {store.format()}.", hint="finish", folder=folder)
    if not store.is_whole():
        raise IndexUnfinishedError(
            f"The index in {folder} is not complete: the run that makes it was ended.", hint="finish", folder=folder
        )
    store.matrix(), store.regions()  # raise an error if a file is missing or short
    roots = [root._replace(path=_new_path(root.path, moved)) for root in store.roots()]
    computed = (store.last_run() or {}).get("computed") or {}
    return _Shard(store, store.committed_rows(), store.model(), store.part(), roots, computed.get("precision"))


def _new_path(path: bytes, moved: Iterable[Moved]) -> bytes:
    for old, new in moved:
        if is_below(path, old):
            return new if path == old else inside(new) + path[len(inside(old)) :]
    return path


def _check_moved(moved: Sequence[tuple[bytes, bytes]], roots: Sequence[bytes]) -> None:
    names = ", ".join(sorted({os.fsdecode(root) for root in roots})) or "none"
    known: dict[bytes, bytes] = {}
    for old, new in moved:
        if known.setdefault(old, new) != new:
            raise InputError(f"{os.fsdecode(old)} cannot be both {os.fsdecode(known[old])} and {os.fsdecode(new)}.")
        if not any(is_below(root.removesuffix(MARK), old) for root in roots):
            within = next((root for root in roots if is_below(old, root)), None)
            wrong = f"is only a part of the folder {os.fsdecode(within)}" if within else "is a folder of no index"
            raise InputError(f"{os.fsdecode(old)} {wrong}. Their folders: {names}.")


# -- whether they fit together -------------------------------------------------------------------------------------


def _missing_parts(shards: Sequence[_Shard]) -> list[Part]:
    """Return the parts that no index holds; empty if none is one of a part.

    Raises:
        InputError: the indexes are not all of parts, or not of parts of the same number.
    """
    first = shards[0]
    for shard in shards:
        if (shard.part and shard.part.of) != (first.part and first.part.of):
            raise InputError(
                f"The index in {first.folder} holds {_held(first)} of its folders, that in {shard.folder} "
                f"{_held(shard)}: merge those that belong together first."
            )
    if first.part is None:
        return []
    there = {shard.part for shard in shards}
    return [part for number in range(1, first.part.of + 1) if (part := Part(number, first.part.of)) not in there]


def _held(shard: _Shard) -> str:
    return f"part {shard.part}" if shard.part else "all pictures"


def _about(shards: Sequence[_Shard], moved: Sequence[Moved], *, any_precision: bool) -> About:
    """Check that indexes fit together, and return what the new one says of itself."""
    filled = [shard for shard in shards if shard.rows] or shards
    for shard in filled:
        _check_pair(filled[0], shard)
    precisions = {shard.precision: shard for shard in filled if shard.precision}
    if len(precisions) > 1 and not any_precision:
        (one, first), (other, second) = list(precisions.items())[:2]
        raise InputError(
            f"The index in {first.folder} was computed in {one}, that in {second.folder} in {other}.",
            hint="any-precision",
        )
    known = filled[0].store.regions_record()
    if known and sum(shard.rows for shard in shards) > _MOST_ROWS_WITH_REGIONS:
        raise InputError(f"An index with regions holds up to {_MOST_ROWS_WITH_REGIONS} images.")
    return About(
        model=filled[0].model,
        side=known and known.side,
        roots=_joined_roots(shards),
        folders=_joined_folders(shards, moved),
        last_run=_last_run(shards),
        codes=any(codes_record(shard.store) is not None for shard in shards),
    )


def _check_pair(first: _Shard, shard: _Shard) -> None:
    """Check that two indexes are of the same model, and both with regions or both without."""
    if first.model and shard.model and first.model.fingerprint != shard.model.fingerprint:
        raise mismatch(shard.folder, shard.model, f"{first.model.name}, as that in {first.folder}")
    regions = [one.store.regions_record() is not None for one in (first, shard)]
    if regions[0] != regions[1]:
        with_them, without = (first, shard) if regions[0] else (shard, first)
        raise InputError(
            f"The index in {with_them.folder} has regions, that in {without.folder} has none.",
            hint="regions-alike",
            folder=without.folder,
        )


def _joined_roots(shards: Sequence[_Shard]) -> list[Root]:
    """Join the roots of indexes; of those that lie in each other, the outermost are kept.

    Raises:
        InputError: a root was searched by different rules, or the indexes are of parts and one lacks a root.
    """
    found: dict[bytes, dict[str, Any]] = {}
    of_parts = shards[0].part is not None
    for shard in shards:
        for path, options in shard.roots:
            known = found.setdefault(path, options)
            if known is options:
                continue
            if _rules(known) != _rules(options):
                raise InputError(f"{os.fsdecode(path)} was searched by other rules in {shard.folder}.", hint="rules")
            readers = known.get("readers") if known.get("readers") == options.get("readers") else None
            passed_over = Counter(known.get("passed_over", {}))
            if of_parts:
                passed_over.update(options.get("passed_over", {}))
            found[path] = known | {"readers": readers, "passed_over": dict(passed_over)}
    if of_parts:
        for shard in shards:
            for lacking in found.keys() - {root.path for root in shard.roots}:
                raise InputError(
                    f"The index in {shard.folder} knows no folder {os.fsdecode(lacking)}, as others do.",
                    hint="moved-root",
                )
    return [
        Root(path, options)
        for path, options in sorted(found.items())
        if not any(path != other and is_below(path, other) for other in found)
    ]


def _rules(options: dict[str, Any]) -> tuple[Rules, bool]:
    return Rules.from_json(options), bool(options.get("skip_damaged"))


def _joined_folders(shards: Sequence[_Shard], moved: Sequence[Moved]) -> list[Folder]:
    """Join what indexes remember of folders. Drives on which they do not agree, or that were moved, are forgotten."""
    found: dict[bytes, Folder] = {}
    for shard in shards:
        for folder in shard.store.folders():
            path = _new_path(folder.path, moved)
            drive = folder.drive if path == folder.path else None
            known = found.get(path, Folder(path, drive))
            found[path] = Folder(
                path,
                drive if drive == known.drive else None,
                known.kept + folder.kept,
                away=known.away or folder.away,
            )
    return [folder for _, folder in sorted(found.items()) if folder.drive is not None or folder.kept]


def _last_run(shards: Sequence[_Shard]) -> dict[str, Any] | None:
    """Add up the last runs of indexes, as if they had been one."""
    runs = [run for shard in shards if (run := shard.store.last_run())]
    if not runs:
        return None
    return {
        "ended_at": max(run["ended_at"] for run in runs),
        "outcome": FINISHED,
        "seconds": round(sum(run["seconds"] for run in runs), 3),
        **{name: sum(run[name] for run in runs) for name in _COUNTED},
        "computed": next(_computed(runs), None),
    }


def _computed(runs: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (run["computed"] for run in runs if run.get("computed"))
