"""`clipsearch query` and `clipsearch similar`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from clipsearch.cli.inputs import EncodingOption, check_encoding, check_inputs, image_input, text_lines
from clipsearch.cli.option_groups import grouped
from clipsearch.cli.options import EngineOption, VerboseOption
from clipsearch.cli.ordering import OrderOptions
from clipsearch.cli.presenting import present
from clipsearch.cli.search_options import (
    ApproximateOption,
    DistinctOption,
    FilterOptions,
    IndexesOption,
    KOption,
    MinScoreOption,
    OutputOptions,
    TunedOption,
    WholeOption,
    opened_all,
    say_why_nothing,
)
from clipsearch.errors import InputError
from clipsearch.models.encoder_options import Engine

if TYPE_CHECKING:
    from clipsearch.search.query_terms import ImageTerm, Term, TextTerm


_BOX = "Use only this part of the image, in pixels from its upper left corner, upright, or percent: 0%,0%,50%,50%"


@grouped
def query(
    terms: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TERM]...",
            help='What the image should show. Several are added up, with optional weights: "0.5:snow".',
            show_default=False,
        ),
    ] = None,
    *,
    unwanted: Annotated[
        list[str] | None,
        typer.Option(
            "--not", metavar="TERM", help="What the image should not show. May be repeated.", show_default=False
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            metavar="FILE",
            help="A picture that the image should be like (- for standard input), with an optional weight: 2:FILE. May "
            "be repeated.",
            show_default=False,
        ),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            "--box",
            metavar="L,T,R,B",
            help=f"{_BOX}. With several images, one box for each --image, in their order.",
            show_default=False,
        ),
    ] = None,
    queries_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Run many queries at once: each line of this file (- for standard input) is one, to which the other "
            "terms are added.",
            show_default=False,
        ),
    ] = None,
    encoding: EncodingOption = None,
    k: KOption = 10,
    min_score: MinScoreOption = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            "--min-confidence",
            metavar="P",
            help="Only images with at least this confidence, from 0 to 1; 0.8 is a good start.",
            show_default=False,
        ),
    ] = None,
    distinct: DistinctOption = None,
    whole: WholeOption = False,
    approximate: ApproximateOption = False,
    filters: FilterOptions,
    order: OrderOptions,
    output: OutputOptions,
    model: TunedOption = None,
    engine: EngineOption = Engine.AUTO,
    index: IndexesOption = None,
    verbose: VerboseOption = False,
) -> int:
    """Find the images that fit a query best, the best first.

    Exits with 0 if something was found, with 1 if nothing was, and with 2 after an error.
    """
    from clipsearch.output.hits import Found
    from clipsearch.search.query_terms import in_words, negated, parse_image, parse_text

    form = output.check()
    images = _with_boxes([parse_image(given) for given in image or ()], box or [])
    check_inputs(queries_from, filters.files_from, *(str(one.image) for one in images))
    check_encoding(encoding, queries_from)
    common: list[Term] = [*map(parse_text, terms or ()), *map(_read, images)]
    common += [negated(parse_text(given)) for given in unwanted or ()]
    queries: list[tuple[str, list[Term]]] = [(in_words(common), common)]
    if queries_from is not None:
        queries = [(line, [term, *common]) for line, term in _lines(queries_from, encoding)]
    elif not common:
        raise InputError('There is nothing to look for. Say it: clipsearch query "a dog is sleeping"')

    opened_index, arguments = opened_all(index, filters, model=model, engine=engine, verbose=verbose)
    with opened_index:
        asked = [terms for _, terms in queries]
        ask = partial(opened_index.search_many, asked, whole=whole, approximate=approximate, **arguments)
        hits = ask(k, min_score=min_score, min_confidence=min_confidence, distinct=distinct)
        if not any(hits):
            is_cut = min_score is not None or min_confidence is not None
            best = ask(1) if is_cut else []
            say_why_nothing(opened_index, [hit for of_one in best for hit in of_one], arguments)
    found = [Found(title, of_one) for (title, _), of_one in zip(queries, hits, strict=True)]
    advice = "--min-score X" if images else "--min-confidence 0.8"
    found = order.applied(found, k, [min_score, min_confidence], advice)
    return present(found, output, form, many=queries_from is not None, order=order)


@grouped
def similar(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="The picture (- for standard input).", show_default=False)
    ],
    *,
    box: Annotated[str | None, typer.Option("--box", metavar="L,T,R,B", help=f"{_BOX}.", show_default=False)] = None,
    include_self: Annotated[
        bool, typer.Option("--include-self", help="Show also the picture itself if it is in the index.")
    ] = False,
    k: KOption = 10,
    min_score: MinScoreOption = None,
    distinct: DistinctOption = None,
    whole: WholeOption = False,
    approximate: ApproximateOption = False,
    filters: FilterOptions,
    order: OrderOptions,
    output: OutputOptions,
    engine: EngineOption = Engine.AUTO,
    index: IndexesOption = None,
    verbose: VerboseOption = False,
) -> int:
    """Find the images that are most similar to a picture, the best first.

    For a picture that is in the index, no model is needed. Exits with 0 if something was found, with 1 if nothing
    was, and with 2 after an error.
    """
    from clipsearch.images.codecs.box import parse_box
    from clipsearch.output.hits import Found
    from clipsearch.search.query_terms import ImageTerm, in_words

    form = output.check()
    check_inputs(image, filters.files_from)
    term = _read(ImageTerm(image, box=parse_box(box) if box is not None else None))
    opened_index, arguments = opened_all(index, filters, engine=engine, verbose=verbose)
    with opened_index:
        ask = partial(
            opened_index.similar,
            term.image,
            box=term.box,
            include_self=include_self,
            whole=whole,
            approximate=approximate,
            **arguments,
        )
        hits = ask(k, min_score=min_score, distinct=distinct)
        if not hits:
            best = ask(1) if min_score is not None else []
            say_why_nothing(opened_index, best, arguments, other="other ")
    found = order.applied([Found(in_words([term]), hits)], k, [min_score], "--min-score X")
    return present(found, output, form, order=order)


def _with_boxes(images: list[ImageTerm], boxes: list[str]) -> list[ImageTerm]:
    """Give each image the box that is meant for it, if there are any."""
    from clipsearch.images.codecs.box import parse_box

    if boxes and len(boxes) != len(images):
        raise InputError(
            f"--box is given {len(boxes)} times and --image {len(images)} times. Each image takes one box, in the same "
            "order; 0%,0%,100%,100% is all of it."
        )
    return [replace(image, box=parse_box(box)) for image, box in zip(images, boxes, strict=True)] if boxes else images


def _read(term: ImageTerm) -> ImageTerm:
    """Replace the name of an image that can be read only once by its content."""
    return replace(term, image=image_input(str(term.image)))


def _lines(name: str, encoding: str | None) -> list[tuple[str, TextTerm]]:
    """Read the queries in a file: each line, and the term that it means."""
    return [(line, _parsed(line, f"{name}, line {number}")) for number, line in text_lines(name, "query", encoding)]


def _parsed(line: str, where: str) -> TextTerm:
    from clipsearch.search.query_terms import parse_text

    try:
        return parse_text(line)
    except InputError as error:
        raise InputError(f"{where}: {error}", hint=error.hints, **error.facts) from error
