"""`clipsearch caption-rank`."""

from __future__ import annotations

from typing import Annotated

import typer

from clipsearch.cli.inputs import check_inputs, image_input
from clipsearch.cli.option_groups import grouped
from clipsearch.cli.options import EngineOption, FormatOptions, IndexOption, VerboseOption, print_rows
from clipsearch.cli.search_options import EXIT_NOTHING_FOUND, FilterOptions, TunedOption, opened, say_why_nothing
from clipsearch.cli.text_options import TextOptions
from clipsearch.models.encoder_options import EncoderOptions, Engine


@grouped
def caption_rank(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="The picture (- for standard input).", show_default=False)
    ],
    *,
    texts: TextOptions,
    top: Annotated[
        int | None,
        typer.Option("--top", metavar="K", min=1, help="Show only the K best texts.", show_default=False),
    ] = None,
    filters: FilterOptions,
    output: FormatOptions,
    model: TunedOption = None,
    engine: EngineOption = Engine.AUTO,
    index: IndexOption = None,
    verbose: VerboseOption = False,
) -> int:
    """Rank a picture among the images of the index, for each of several texts as the query.

    The text with the best rank comes first. A picture that is not in the index is ranked as if it were. Exits with 0,
    with 1 if there is no image to rank it among, and with 2 after an error.
    """
    from clipsearch.api import embedder_for
    from clipsearch.tasks.caption_ranks import caption_ranks

    form = output.form()
    check_inputs(image, texts.texts_from, filters.files_from)
    sentences = list(dict.fromkeys(text for _, text in texts.read()))
    wanted = image_input(image)
    opened_index, arguments = opened(index, filters, engine=engine, verbose=verbose)
    with opened_index:
        store = opened_index.store
        options = EncoderOptions(engine=engine.value)
        ranks = caption_ranks(store, embedder_for(store, model, options), wanted, sentences, **arguments)
        rows = [one._asdict() for one in ranks[:top]]
        columns = ("rank", "images", "score", "text")
        print_rows(rows, form, numbers={"score": ".4f"}, columns=columns)
        if not ranks:
            say_why_nothing(opened_index, [], arguments)
            return EXIT_NOTHING_FOUND
    return 0
