"""`clipsearch status`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from clipsearch.cli.options import IndexOption, JsonOption, say, writing_output

if TYPE_CHECKING:
    from clipsearch.index.format import ModelRecord
    from clipsearch.index.verifying import Finding

EXIT_DAMAGED = 2


def status(
    *,
    index: IndexOption = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Check matrix, database and the towers in the cache; exit with 2 if something is damaged.",
        ),
    ] = False,
    json: JsonOption = False,
) -> int:
    """Show what an index holds: model, roots, images, sources of dates, unreadable files, size, last run."""
    from clipsearch.index.reading import Store
    from clipsearch.index.verifying import verify as findings_of
    from clipsearch.index_choice import index_folder
    from clipsearch.models.disk.catalog import BUNDLED, PICTUREBOOK_NOTE
    from clipsearch.output.reports import status_json, status_of, status_text
    from clipsearch.output.rows import utf8

    with closing(Store.open(index_folder(index))) as store:
        findings = [*findings_of(store), *_of_towers(store.model())] if verify else None
        found = status_of(store, findings)
    with writing_output():
        sys.stdout.buffer.write(status_json(found) if json else utf8(f"{status_text(found)}\n"))
    if found.model and found.model.name == BUNDLED and not json:
        say(f"Note: {PICTUREBOOK_NOTE}")
    return EXIT_DAMAGED if found.findings and not all(finding.harmless for finding in found.findings) else 0


def _of_towers(model: ModelRecord | None) -> Iterator[Finding]:
    """Find problems of the towers in the cache that queries of this index use."""
    from clipsearch.index.verifying import Finding
    from clipsearch.models.in_numpy import image_cache, tower_cache

    for tower, damage in (("text", tower_cache.damage), ("image", image_cache.damage)):
        found = damage(model.fingerprint, thorough=True) if model else None
        if model and found:
            yield Finding(
                f"the {tower} tower of model {model.name} in the cache: {found}",
                hint="pull-tower",
            )
