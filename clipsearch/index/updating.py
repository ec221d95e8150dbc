"""Updates an index: takes the lock, decides what is asked of it, and makes one run.

The module knows nothing of how a model is chosen and computes: one is passed in, and is loaded when it is needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypedDict, Unpack

from clipsearch.errors import InputError
from clipsearch.images.codecs.limits import default_max_pixels
from clipsearch.images.codecs.optional_packages import readers
from clipsearch.images.files import ImageFile, Rules
from clipsearch.images.parts import Part
from clipsearch.index import pipeline as here
from clipsearch.index.archives import check_archives
from clipsearch.index.diff import Changes
from clipsearch.index.format import missing_index
from clipsearch.index.models import IndexModel
from clipsearch.index.pipeline import Pipeline
from clipsearch.index.reading import Store
from clipsearch.index.run import Run
from clipsearch.index.summary import Merged, Summary
from clipsearch.index.targets import everything, names_of, targets
from clipsearch.index.writing import Writer
from clipsearch.system.members import opened
from clipsearch.system.paths import absolute, is_below
from clipsearch.system.progress import SILENT, Progress


class UpdateOptions(TypedDict, total=False):
    """The options of an update."""

    rules: Rules | None
    """Which files to take. The index stores the rules for the paths; None leaves known roots as they are."""
    skip_damaged: bool | None
    """Whether to refuse damaged images. The index stores this for the paths; None leaves known roots as they are."""
    allow_empty: bool
    """Whether a folder may be without images; its records are then deleted. Otherwise it is an error."""
    reread: bool
    """Whether to read every file, changed or not."""
    max_pixels: int | None
    """Images with more pixels are not decoded; by default the number that fits this machine's memory."""
    wait: float
    """For how many seconds to wait for another writer."""
    part: str | None
    """The part of the folders to take, as in "3/16". The index stores it; None leaves it as it is."""
    regions: bool | None
    """Whether large images get vectors of their regions as well. The index stores this; None leaves it as it is."""
    codes: bool | None
    """Whether vectors get short codes, for approximate searches. The index stores this; None leaves it as it is."""
    takes: Callable[[ImageFile], bool]
    """Whether a file that is new, or has another size or time, is read now; by default all are. Others stay as the
    index has them."""
    keep_dead: bool
    """Whether vectors of files that are gone are kept until a later update, even if they are many: the files may come
    back under other names."""


def update(
    folder: Path,
    paths: Sequence[str | os.PathLike[str]],
    model: IndexModel,
    *,
    progress: Progress = SILENT,
    pipeline: Pipeline = here,
    **options: Unpack[UpdateOptions],
) -> Summary:
    """Update the index in `folder`, or create it. An error or an interruption commits everything done so far first.

    Args:
        folder: that of the index.
        paths: the folders, files and addresses to search; without any, all roots of the index.
        model: is loaded only when there is something to embed.
        progress: is updated with the numbers of files found and done.
        pipeline: reads and embeds the images.
        options: see `UpdateOptions`.

    Raises:
        IndexMissingError: there is neither an index nor a path.
        ClipsearchError: a path cannot be searched, the model cannot be loaded or is not that of the index, or the index
            cannot be written.
    """
    # Checked first in any case, because only `exists` raises the error for a folder without permission.
    if not Store.exists(folder) and not paths:
        raise missing_index(folder)
    part = Part.parse(wanted) if (wanted := options.get("part")) is not None else None
    limit = options.get("max_pixels") or default_max_pixels()
    allow_empty = options.get("allow_empty", False)
    # The lock is taken first, so that an index that cannot be written is reported before a search or a model load.
    with closing(Changes()) as changes, Writer.locked(folder, wait=options.get("wait", 0)) as writer:
        roots = writer.roots()
        paths = paths or [os.fsdecode(root.path) for root in roots]
        if not paths:
            raise InputError(f"The index in {folder} knows no folder to refresh.", hint="name-folder")
        if part is not None:
            writer.set_part(part)
        model.choose(writer, writer.model(), [Path(path) for path in paths])
        if (codes := options.get("codes")) is not None:
            writer.want_codes(wanted=codes)
        _decide_regions(writer, model, wanted=options.get("regions"))
        starts = [opened(absolute(path)) for path in paths]
        names = names_of(starts, roots)
        places = targets(
            [names.get(start, start) for start in starts],
            [root for root in roots if root.path not in names],
            options.get("rules"),
            f"{readers()}, {limit} pixels",
            reread=options.get("reread", False),
            skip_damaged=options.get("skip_damaged"),
            part=writer.part(),
            takes=options.get("takes", everything),
        )
        for place in places:
            check_archives(place.start, place.root, roots, place.rules)
        run = Run(
            writer,
            changes,
            places,
            model=model,
            max_pixels=limit,
            pipeline=pipeline,
            progress=progress,
            keeps_dead=options.get("keep_dead", False),
        )
        run.merge(
            Merged(path, name)
            for path, name in names.items()
            if path in starts or any(is_below(name, place.start) for place in places)
        )
        run.compare(allow_empty=allow_empty)
        run.record(allow_empty=allow_empty)
        return run.summary


def _decide_regions(writer: Writer, model: IndexModel, *, wanted: bool | None) -> None:
    """Begin or drop the regions of an index.

    Raises:
        InputError: regions are wanted of a model that has no fixed input size.
        ClipsearchError: the model is not available.
    """
    if wanted is False and writer.region_side is not None:
        writer.drop_regions()
    if wanted and writer.region_side is None:
        side = model.side()
        if side is None:
            raise InputError(
                "This model takes images of any proportions and sees small things by itself; regions are for models "
                "that see a square.",
                hint="no-regions",
            )
        writer.begin_regions(side)
