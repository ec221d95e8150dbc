"""What commands read: files that hold texts or names, standard input, and image files that are named one by one."""

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
    from clipsearch.images.finding import ImageFile

STDIN = "-"
"""Means standard input wherever a file is asked for."""
EncodingOption = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        metavar="NAME",
        help="What that file is written in, if not in UTF-8, or in UTF-16 or UTF-32 with its mark: cp949, euc-kr, "
        "shift_jis, gb18030, latin-1, cp1252.",
        show_default=False,
    ),
]


def check_inputs(*names: str | None) -> None:
    """Raises InputError if more than one input is standard input."""
    if names.count(STDIN) > 1:
        raise InputError("Only one thing can be read from standard input (-).")


def check_encoding(encoding: str | None, *files: object) -> None:
    """Raises InputError if there is no such encoding, or no file that could be in it."""
    if encoding is None:
        return
    from clipsearch.datasets import tables

    tables.check_encoding(encoding)
    if not any(files):
        raise InputError("--encoding says what a file of texts or names is written in, and no such file is given.")


def read_input(name: str) -> bytes:
    """The content of a file, or of standard input for `-`.

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
    """What comes through a pipe.

    Raises:
        InputError: it is closed.
    """
    if sys.stdin is None:
        raise InputError("Cannot read standard input (-): it is closed.")
    return sys.stdin.buffer


def called(name: str) -> str:
    """An input for people."""
    return "standard input" if name == STDIN else name


def text_lines(name: str, what: str, encoding: str | None = None) -> list[tuple[int, str]]:
    """The lines of a file that are not blank, with their numbers; `what` one line is, say "query".

    It is in UTF-8 unless its byte order mark or `encoding` says otherwise, and then the user is told.

    Raises:
        InputError: it cannot be read, is in another encoding, or has no such line.
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
    """The paths that a file lists: one a line, or separated by NUL if there is one in it.

    A line counts as it is and also as it is meant: without the byte order mark and the carriage return of Windows'
    editors, which may be part of a name.
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
    """What to look at for a picture that was named: its file, or the content of what can be read only once.

    That is standard input (`-`), and pipes such as `<(...)`.

    Raises:
        InputError: the content cannot be read, or is more than the largest picture needs.
    """
    return _content(name) if _is_stream(name) else name


@contextmanager
def named_images(given: Iterable[str | Path]) -> Iterator[tuple[list[ImageFile], dict[bytes, str]]]:
    """`image_files` of what was named, also of standard input and pipes, as for `image`.

    What can be read only once lies in temporary files within; the second value has their paths, and what was typed.

    Raises:
        InputError: as for `image_files` and `image`.
    """
    import tempfile  # for all that a text query needs, starting it would take longest

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
    """Name pictures of which a part is missing, by path and share; `called` is what the user called each."""
    from clipsearch.images.missing_share import missing
    from clipsearch.output.paths import printable, shown

    for path, share in sorted(set(damaged)):
        say(f"Damaged: {printable(shown(os.fsencode(called(path))))}: {missing(share)}")


def _is_stream(name: str) -> bool:
    """Whether it can be read only once: standard input, a pipe, a device."""
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
        raise InputError(f"Cannot read the picture {where}: {error}") from error


def image_files(paths: Iterable[Path]) -> list[ImageFile]:
    """The image files that are named, and those in the folders that are, each once, in the order in which they come.

    What cannot be looked into is named on stderr, and so is a picture that a run which was killed left aside.

    Raises:
        InputError: something is not there or cannot be read, or a folder holds no image.
    """
    from clipsearch.images.finding import find_images
    from clipsearch.images.other_files import PassedOver, listed
    from clipsearch.output.paths import printable, shown
    from clipsearch.system.paths import absolute

    def unreadable(folder: bytes, reason: str) -> None:
        say(f"Cannot read {printable(shown(folder))}: {reason}")

    found: dict[bytes, ImageFile] = {}
    for path in paths:
        passed = PassedOver()
        files = list(find_images(absolute(path), unreadable=unreadable, passed_over=passed.add))
        if not files:
            others = f" Left out: {listed(passed.counts)}." if passed.counts else ""
            raise InputError(f"There is no image{' that can be read' if others else ''} in {path}.{others}")
        found |= {file.path: file for file in files}
    return list(found.values())
