"""`clipsearch eval`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipsearch.cli.inputs import STDIN, EncodingOption, called, read_input, say_damaged
from clipsearch.cli.option_groups import grouped
from clipsearch.cli.options import FormatOptions, ModelOptions, print_rows, say
from clipsearch.cli.search_options import WholeOption
from clipsearch.errors import InputError

if TYPE_CHECKING:
    from clipsearch.datasets.captions import Captions
    from clipsearch.output.rows import Row
    from clipsearch.search.embedder import Embedder
    from clipsearch.tasks.evaluation import Evaluation

EXIT_UNMET = 1
EXIT_UNREADABLE = 2


@grouped
def eval_(
    captions: Annotated[
        Path,
        typer.Argument(
            metavar="CAPTIONS",
            help="A table (CSV, TSV) with columns image (or path, filename, filepath) and caption (or text, title), "
            "Karpathy's JSON, COCO's captions_*.json, or Flickr8k's token "
            "file (- for standard input); or a folder or archive with a .txt or .json file beside each image, as "
            "img2dataset writes it.",
            show_default=False,
        ),
    ],
    *,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            metavar="DIR",
            help="The folder that paths of images start from. By default that of CAPTIONS.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", metavar="NAME", help="Take only this part of Karpathy's JSON, such as test.", show_default=False
        ),
    ] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out images that are missing. Without it, they are an error.")
    ] = False,
    encoding: EncodingOption = None,
    whole: WholeOption = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 if an image could not be read.")] = False,
    at_least: Annotated[
        list[str] | None,
        typer.Option(
            "--min",
            metavar="METRIC=VALUE",
            help="Exit with 1 if a metric (recall@1, recall@5, recall@10, mrr) is less than this value in either "
            "direction, or in only one with t2i. or i2t. before its name: t2i.recall@5=0.8. May be repeated.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--compare",
            metavar="MODEL MODEL",
            help="Compare two models, named as for --model.",
            show_default=False,
        ),
    ] = None,
    model: ModelOptions,
    output: FormatOptions,
) -> int:
    """Evaluate how well a model finds images by captions, and captions by images.

    Prints recall@1, recall@5 and recall@10, median rank and mean reciprocal rank. Exits with 0, with 1 if --min is
    not met, and with 2 after an error.
    """
    from clipsearch.datasets.captions import read_captions
    from clipsearch.tasks.evaluation import parse_gate, unmet

    # 1. Check the options and read the captions, before a model is loaded.
    form = output.form()
    gates = [parse_gate(given) for given in at_least or ()]
    if compare and model.model is not None:
        raise InputError("--compare names the models itself. Leave out --model.")
    content = read_input(STDIN) if str(captions) == STDIN else None
    read = read_captions(
        called(str(captions)),  # with a content, only a name for errors
        images=images,
        split=split,
        skip_missing=skip_missing,
        content=content,
        encoding=encoding,
    )
    if read.missing:
        say(f"Left out: {len(read.missing)} of {len(read.missing) + len(read.images)} images are missing.")
    # 2. Evaluate.
    found = _measured([replace(model, model=name) for name in compare] if compare else [model], read, whole=whole)
    # 3. Report.
    unreadable = _say_unreadable(found)
    rows = _side_by_side(found, compare or (found[0].model,)) if form == "table" else _records(found)
    print_rows(rows, form, numbers=dict.fromkeys(rows[0], ".4f"))
    complaints = [complaint for evaluation in found for complaint in unmet(evaluation, gates)]
    for complaint in complaints:
        say(f"Not met: {complaint}")
    return EXIT_UNREADABLE if strict and unreadable else EXIT_UNMET if complaints else 0


def _say_unreadable(found: Sequence[Evaluation]) -> dict[bytes, str]:
    """Report each image that cannot be read, and return them with the reasons."""
    from clipsearch.output.paths import printable, shown

    unreadable = {path: reason for evaluation in found for path, reason in evaluation.unreadable}
    for path, reason in unreadable.items():
        say(f"Cannot read {printable(shown(path))}: {reason}")
    return unreadable


def _measured(choices: list[ModelOptions], captions: Captions, *, whole: bool) -> list[Evaluation]:
    """Evaluate each model, and report damaged images."""
    with ExitStack() as stack:
        embedders = [stack.enter_context(choice.open()) for choice in choices]
        if len({each.name for each in embedders}) < len(embedders):
            raise InputError(f"--compare wants two models, but both are {embedders[0].name}.")
        found = [_evaluated(each, captions, whole=whole) for each in embedders]
    say_damaged((item for each in embedders for item in each.damaged), os.fsdecode)
    return found


def _evaluated(embedder: Embedder, captions: Captions, *, whole: bool) -> Evaluation:
    """Evaluate one model."""
    from clipsearch.cli.progress import ProgressBar
    from clipsearch.tasks.evaluation import evaluate

    with ProgressBar(doing="Embedding") as bar:
        return evaluate(embedder, captions, progress=bar, regions_of=None if whole else embedder.regions_of)


def _records(found: Sequence[Evaluation]) -> list[Row]:
    """Make rows for programs, one for each model and direction."""
    return [
        {
            "model": evaluation.model,
            "direction": result.direction,
            "queries": result.queries,
            "candidates": result.candidates,
            **result.metrics,
        }
        for evaluation in found
        for result in evaluation.directions
    ]


def _side_by_side(found: Sequence[Evaluation], names: Sequence[str]) -> list[Row]:
    """Make rows for people, one for each direction and metric, with a column for each model."""
    rows: list[Row] = []
    for results in zip(*(evaluation.directions for evaluation in found), strict=True):
        columns = [{"queries": result.queries, "candidates": result.candidates, **result.metrics} for result in results]
        for metric in columns[0]:
            values = {name: _shown(metric, column[metric]) for name, column in zip(names, columns, strict=True)}
            rows.append({"direction": results[0].direction, "metric": metric, **values})
    return rows


def _shown(metric: str, value: float) -> float | str:
    """Format a metric. A median rank gets no decimals, because 1.0000 would look like a share."""
    return f"{value:g}" if metric == "median_rank" else value
