"""`clipsearch cluster`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipsearch.cli.inputs import EncodingOption, check_encoding, check_inputs, text_lines
from clipsearch.cli.option_groups import grouped
from clipsearch.cli.options import FormatOptions, IndexOption, VerboseOption, print_rows, say
from clipsearch.cli.search_options import EXIT_NOTHING_FOUND, FilterOptions, GroupsPageOption, check_page, opened
from clipsearch.errors import InputError, NothingFoundError

if TYPE_CHECKING:
    from clipsearch.index.filters import FilterArguments
    from clipsearch.index.reading import Store
    from clipsearch.output.rows import Row
    from clipsearch.tasks.clusters import Cluster


COLUMNS = ("cluster", "name", "score", "path")


class Method(StrEnum):
    """The values of `--method`, as in `clusters.Method`, but without importing NumPy."""

    KMEANS = "kmeans"
    AGGLOMERATIVE = "agglomerative"
    HDBSCAN = "hdbscan"


@dataclass(frozen=True)
class ClusterOptions:
    """The options for finding and naming groups."""

    n: Annotated[
        int | None,
        typer.Option(
            "-n",
            metavar="K",
            min=1,
            help="The number of groups. By default it is chosen automatically.",
            show_default=False,
        ),
    ] = None
    method: Annotated[
        Method,
        typer.Option("--method", help="The method of clustering; agglomerative and hdbscan take up to 10,000 images."),
    ] = Method.KMEANS
    min_size: Annotated[
        int | None,
        typer.Option(
            "--min-size",
            metavar="M",
            min=2,
            help="With hdbscan: the smallest number of images in a group; by default 5.",
            show_default=False,
        ),
    ] = None
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            metavar="S",
            min=0,
            max=2**32 - 1,
            help="Start k-means from another random state; another number may give other groups.",
        ),
    ] = 0
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            metavar="TEXT",
            help="What a group may be called. May be repeated; each group gets the one that sets it apart best, and up "
            "to two that nearly do.",
            show_default=False,
        ),
    ] = None
    labels_from: Annotated[
        str | None,
        typer.Option(
            "--labels-from",
            metavar="FILE",
            help="More names for groups: each line of this file (- for standard input) is one.",
            show_default=False,
        ),
    ] = None
    encoding: EncodingOption = None

    def find(self, store: Store, filters: FilterArguments) -> list[Cluster]:
        """Find the groups of the images that fulfil `filters`."""
        from clipsearch.tasks.clusters import find_clusters

        return find_clusters(store, self.n, method=self.method.value, min_size=self.min_size, seed=self.seed, **filters)

    def labels(self) -> list[str]:
        """Return the labels of the options, each once.

        Raises:
            InputError: a file of labels cannot be read, or a label is blank.
        """
        check_encoding(self.encoding, self.labels_from)
        lines = [] if self.labels_from is None else text_lines(self.labels_from, "label", self.encoding)
        labels = [label.strip() for label in [*(self.label or ()), *(line for _, line in lines)]]
        if not all(labels):
            raise InputError("A label is blank. Say what a group may be called: --label dog")
        return list(dict.fromkeys(labels))


@grouped
def cluster(
    *,
    clusters: ClusterOptions,
    top: Annotated[
        int | None,
        typer.Option(
            "--top", metavar="M", min=1, help="Show only the M images most typical of each group.", show_default=False
        ),
    ] = None,
    output: FormatOptions,
    html: GroupsPageOption = None,
    filters: FilterOptions,
    index: IndexOption = None,
    verbose: VerboseOption = False,
) -> int:
    """Divide images into groups of similar ones, the largest first.

    In each group the most typical images come first: score is the cosine with the centre of the group. Groups are
    numbered; images that hdbscan puts in no group have number 0. Needs scikit-learn: pip install
    'clipsearch[cluster]'. Exits with 0, with 1 if there is no group or fewer than two images, and with 2 after an
    error.
    """
    # 1. Check the options.
    form = output.form()
    check_inputs(clusters.labels_from, filters.files_from)
    labels = clusters.labels()
    check_page(html)
    # 2. Find groups.
    opened_index, arguments = opened(index, filters, verbose=verbose)
    with opened_index:
        try:
            found = clusters.find(opened_index.store, arguments)
        except NothingFoundError:
            _print([], form)
            raise
        if labels:
            from clipsearch.search.embedder import Embedder
            from clipsearch.tasks.clusters import name_clusters

            embedder = Embedder(opened_index.store)
            found = name_clusters(found, labels, embedder.embed_texts(labels))
    # 3. Print them.
    sizes = [len(one.hits) for one in found]
    found = [one._replace(hits=one.hits[:top]) for one in found]
    _print(found, form)
    if html:
        _write_page(found, sizes, html)
    say(_counted(found, sizes))
    return 0 if any(one.number for one in found) else EXIT_NOTHING_FOUND


def _print(found: Sequence[Cluster], form: str) -> None:
    rows: list[Row] = [
        {"cluster": one.number, "name": one.name, "score": hit.score, "path": hit.path_bytes}
        for one in found
        for hit in one.hits
    ]
    print_rows(rows, form, numbers={"score": ".4f"}, columns=COLUMNS)


def _write_page(found: Sequence[Cluster], sizes: Sequence[int], html: Path) -> None:
    from clipsearch.output.gallery import About, Section, write_gallery

    sections = [Section(f"{_title(one)} ({size})", one.hits) for one, size in zip(found, sizes, strict=True)]
    write_gallery(html, sections, About("group", "groups", "cosine with the middle of the group"))
    say(f"Wrote {html}.")


def _title(one: Cluster) -> str:
    if not one.number:
        return "In no group"
    return f"{one.number}: {one.name}" if one.name else f"Group {one.number}"


def _counted(found: Sequence[Cluster], sizes: Sequence[int]) -> str:
    from clipsearch.system.counting import plural

    number = sum(1 for one in found if one.number)
    alone = sum(size for one, size in zip(found, sizes, strict=True) if not one.number)
    images = sum(sizes) - alone
    groups = f"{plural(number, 'group')} of {plural(images, 'image')}"
    return f"{groups}; {alone} in no group." if alone else f"{groups}."
