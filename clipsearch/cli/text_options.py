"""The options for texts that images are compared with, on the command line or in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from clipsearch.cli.inputs import EncodingOption, check_encoding, text_lines
from clipsearch.errors import InputError
from clipsearch.system.unicode import check_utf8

TextsFromOption = Annotated[
    str | None,
    typer.Option(
        "--texts-from",
        metavar="FILE",
        help="More texts: each line of this file (- for standard input) that is not blank is one.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class TextOptions:
    """The options for texts."""

    text: Annotated[
        list[str] | None,
        typer.Option("--text", "-t", metavar="TEXT", help="A text. May be repeated.", show_default=False),
    ] = None
    texts_from: TextsFromOption = None
    encoding: EncodingOption = None

    def read(self) -> list[tuple[str, str]]:
        """Return the texts, stripped, each with its origin for errors.

        Raises:
            InputError: there is no text, one is blank or not UTF-8, or the file cannot be read.
        """
        check_encoding(self.encoding, self.texts_from)
        given = [("--text", text) for text in self.text or ()]
        if self.texts_from is not None:
            lines = text_lines(self.texts_from, "text", self.encoding)
            given += [(f"{self.texts_from}, line {number}", line) for number, line in lines]
        if not given:
            raise InputError('There is no text. Say it: --text "a dog is sleeping", or --texts-from FILE')
        return [(where, checked(text, where).strip()) for where, text in given]


def checked(text: str, where: str) -> str:
    """Check that `text`, from the origin `where`, is neither blank nor invalid UTF-8, and return it.

    Raises:
        InputError: it is.
    """
    if not text.strip():
        raise InputError(f"{where}: the text is blank. Say what a picture may show: a dog is sleeping")
    check_utf8(text, f"{where}: the text")
    return text


def distinct(given: list[tuple[str, str]]) -> list[str]:
    """Check that all texts differ, and return them without their origin.

    Raises:
        InputError: a text is given twice.
    """
    first: dict[str, str] = {}
    for where, text in given:
        if text in first:
            raise InputError(f"The text {text!r} comes twice ({first[text]}; {where}). Leave one of them out.")
        first[text] = where
    return list(first)
