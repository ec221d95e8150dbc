"""Inputs of commands: files with texts or names, standard input, and image files."""

from __future__ import annotations

import codecs
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from clipsearch.cli.talk import say
from clipsearch.errors import InputError, UnreadableImageError
from clipsearch.system.bounded import read_list, read_list_in

if TYPE_CHECKING:
    from clipsearch.images.files import ImageFile

STDIN = "-"
"""The name that stands for standard input."""
EncodingOption = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        metavar="NAME",
        help="The encoding of the file if it is neither UTF-8, nor UTF-16 or UTF-32 with a byte order mark: cp949, "
        "euc-kr, shift_jis, gb18030, latin-1, cp1252.",
        show_default=False,
    ),
]


def check_inputs(*names: str | None) -> None:
    """Check that at most one input is standard input.

    Raises:
        InputError: more than one is.
    """
    if names.count(STDIN) > 1:
        raise InputError("Only one thing can be read from standard input (-).")


def check_encoding(encoding: str | None, *files: object) -> None:
    """Check the encoding that is given for `files`.

    Raises:
        InputError: Python does not know it, or there is no file.
    """
    if encoding is None:
        return
    from clipsearch.datasets import tables

    tables.check_encoding(encoding)
    if not any(files):
        raise InputError("--encoding says what a file of texts or names is written in, and no such file is given.")


def read_input(name: str) -> bytes:
    """Read a file, or standard input for `-`.

    Raises:
        InputError: it cannot be read.
    """
    try:
        if name == STDIN:
            return read_list(standard_input(), called(name))
        return read_list_in(name)
    except OSError as error:
        raise InputError(f"Cannot read {called(name)}: {error.strerror}") from error


def standard_input() -> BinaryIO:
    """Return standard input as a binary file.

    Raises:
        InputError: standard input is closed.
    """
    if sys.stdin is None:
        raise InputError("Cannot read standard input (-): it is closed.")
    return sys.stdin.buffer


def called(name: str) -> str:
    """Return the name of an input for messages."""
    return "standard input" if name == STDIN else name


def text_lines(name: str, what: str, encoding: str | None = None) -> list[tuple[int, str]]:
    """Read the lines of a file that are not blank, with their numbers.

    Args:
        name: the file, or `-` for standard input.
        what: the word for the content of a line in errors, for example "query".
        encoding: that of a file which is neither UTF-8 nor has a byte order mark. An encoding other than UTF-8 is
            reported.

    Raises:
        InputError: the file cannot be read, is in another encoding, or has only blank lines.
    """
    from clipsearch.datasets.tables import check_utf8, decoded, lines_of

    text = decoded(read_input(name), called(name), encoding, may_hold_nul=True)
    if assumed := text.assumed(called(name)):
        say(assumed)
    found = [(number, line) for number, line in enumerate(lines_of(text.text), 1) if line.strip()]
    for number, line in found:
        check_utf8(line, f"{called(name)}, line {number},")
    if not found:
        raise InputError(f"There is no {what} in {called(name)}: write one on each line.")
    return found


def paths_in(content: bytes) -> list[str]:
    """Split the content of a file into paths, one in each line, or separated by NUL if it contains any.

    A line with a byte order mark or a carriage return, which editors on Windows add but which may also be part of a
    name, is returned both with and without it.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        content = content.decode("utf-16", "surrogatepass").encode("utf-8", "surrogatepass")
    separator = b"\0" if b"\0" in content else b"\n"
    lines = content.split(separator)
    if lines[0].startswith(codecs.BOM_UTF8):
        lines.append(lines[0].removeprefix(codecs.BOM_UTF8))
    if separator == b"\n":
        lines += [line.removesuffix(b"\r") for line in lines if line.endswith(b"\r")]
    return [os.fsdecode(path) for path in lines if path]


def image_input(name: str) -> str | bytes:
    """Return the path of a named image, or its content if it can be read only once.

    That is so for standard input (`-`) and for pipes such as `<(...)`.

    Raises:
        InputError: the content cannot be read, or is larger than any image.
    """
    return _content(name) if _is_stream(name) else name


@contextmanager
def named_images(given: Iterable[str | Path]) -> Iterator[tuple[list[ImageFile], dict[bytes, str]]]:
    """Find image files as `image_files` does, also in standard input and pipes.

    Those that can be read only once are copied to temporary files, which exist within this context.

    Yields:
        The files, and for each temporary file the name that was typed.

    Raises:
        InputError: as for `image_files` and `image_input`.
    """
    import tempfile  # a text query does not need it, and importing it takes long

    from clipsearch.system.paths import absolute

    typed: dict[bytes, str] = {}
    with tempfile.TemporaryDirectory(prefix="clipsearch-") as folder:
        paths = []
        for name in dict.fromkeys(map(str, given)):
            path = Path(name)
            if _is_stream(name):
                path = Path(folder) / str(len(typed))
                path.write_bytes(_content(name))
                typed[absolute(path)] = name
            paths.append(path)
        yield image_files(paths), typed


def say_damaged(damaged: Iterable[tuple[bytes, float]], called: Callable[[bytes], str | bytes]) -> None:
    """Report damaged images, given by path and missing share; `called` returns the name that the user typed."""
    from clipsearch.images.codecs.missing_share import missing
    from clipsearch.output.paths import printable, shown

    for path, share in sorted(set(damaged)):
        say(f"Damaged: {printable(shown(os.fsencode(called(path))))}: {missing(share)}")


def _is_stream(name: str) -> bool:
    """Whether an input can be read only once, as standard input, a pipe or a device."""
    if name == STDIN:
        return True
    try:
        mode = os.stat(name).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _content(name: str) -> bytes:
    from clipsearch.images.reading import read_image, read_stream

    try:
        return read_stream(standard_input()) if name == STDIN else read_image(os.fsencode(name))
    except (UnreadableImageError, OSError) as error:
        where = "from standard input" if name == STDIN else name
        raise InputError(f"Cannot read the image {where}: {error}") from error


def image_files(paths: Iterable[Path]) -> list[ImageFile]:
    """Find the image files among `paths` and in the folders among them, each once, in their order.

    Folders that cannot be listed are reported.

    Raises:
        InputError: a path does not exist or cannot be read, or a folder contains no image.
    """
    from clipsearch.images.finding import find_images
    from clipsearch.images.other_files import PassedOver, listed
    from clipsearch.output.paths import printable, shown
    from clipsearch.system.addresses import is_address
    from clipsearch.system.paths import absolute

    def unreadable(folder: bytes, reason: str) -> None:
        say(f"Cannot read {printable(shown(folder))}: {reason}")

    found: dict[bytes, ImageFile] = {}
    for path in paths:
        passed, place = PassedOver(), absolute(path)
        files = list(find_images(place, unreadable=unreadable, passed_over=passed.add))
        if not files:
            others = f" Left out: {listed(passed.counts)}." if passed.counts else ""
            where = os.fsdecode(place) if is_address(place) else path
            raise InputError(f"There is no image{' that can be read' if others else ''} in {where}.{others}")
        found |= {file.path: file for file in files}
    return list(found.values())
