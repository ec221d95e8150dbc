"""`clipsearch tokens`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from clipsearch.cli.inputs import STDIN, EncodingOption, check_encoding, check_inputs, text_lines
from clipsearch.cli.option_groups import grouped
from clipsearch.cli.options import (
    FormatOptions,
    IndexOption,
    ModelOption,
    VerboseOption,
    screen_width,
    writing_output,
)
from clipsearch.cli.text_options import TextsFromOption
from clipsearch.errors import InputError


@grouped
def tokens(
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT]...",
            help="A text to tokenise (- for the lines of standard input).",
            show_default=False,
        ),
    ] = None,
    *,
    texts_from: TextsFromOption = None,
    encoding: EncodingOption = None,
    output: FormatOptions,
    model: ModelOption = None,
    index: IndexOption = None,
    verbose: VerboseOption = False,
) -> int:
    """Show how a model tokenises texts: pieces, ids, their number, and where a long text is cut.

    Needs no index. Exits with 0, and with 2 after an error.
    """
    from clipsearch.api import load_model
    from clipsearch.cli.log import show_log
    from clipsearch.output.tokens import write_tokens
    from clipsearch.tasks.explain_tokens import tokenized

    form = output.form()
    check_inputs(*(texts or ()), texts_from)
    check_encoding(encoding, texts_from, STDIN in (texts or ()))
    wanted = _texts(texts or [], texts_from, encoding)
    show_log(verbose=verbose)
    with load_model(model, index) as embedder:
        found = tokenized(embedder, wanted)
    with writing_output():
        write_tokens(found, form, sys.stdout.buffer, screen=screen_width())
    return 0


def _texts(given: list[str], file: str | None, encoding: str | None) -> list[str]:
    """Collect the texts in the order of the arguments, followed by those of the file."""
    texts: list[str] = []
    for text in given:
        texts += [line for _, line in text_lines(STDIN, "text", encoding)] if text == STDIN else [text]
    if file is not None:
        texts += [line for _, line in text_lines(file, "text", encoding)]
    if not texts:
        raise InputError('There is no text. Say it: clipsearch tokens "a dog is sleeping"')
    return texts
