"""Detection of what a terminal can show, from its own answers, tmux and the environment.

Knows nothing of images and hits.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from rich.color import ColorSystem
from rich.console import COLOR_SYSTEMS, Console

from clipsearch.errors import InputError

try:
    import fcntl
    import struct
    import termios
except ImportError:  # Windows, where a terminal cannot be asked this way
    HAS_TERMIOS = False
else:
    HAS_TERMIOS = True

PROTOCOLS = ("kitty", "iterm2", "sixel", "blocks")
"""Ways to send images to a terminal; `blocks` are half blocks, which are text in two colours."""
VARIABLE = "CLIPSEARCH_PREVIEW"
"""Environment variable that names a protocol, for terminals that are not detected correctly."""

_PATIENCE = 2.0
"""Limit in seconds for answers, enough for ssh around the world. A later answer would appear at the prompt."""
_USUAL_CELL = (10, 20)
"""Width and height in pixels of a character on the VT340, the first terminal with Sixel."""
_KITTY_ASKED = "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"
_NAME_ASKED = "\x1b[>q"
_CELL_ASKED = "\x1b[16t"
_ATTRIBUTES_ASKED = "\x1b[c"
"""Query that every terminal answers. Answers come in the order of queries, so this one is the last."""
_KITTY = re.compile(rb"\x1b_Gi=31;OK\x1b\\")
_NAME = re.compile(rb"\x1bP>\|([^\x1b]*)\x1b\\")
_CELL = re.compile(rb"\x1b\[6;(\d+);(\d+)t")
_ATTRIBUTES = re.compile(rb"\x1b\[\?([\d;]*)c")
_SIXEL_ATTRIBUTE = b"4"
# The best protocol of terminals that have several. WezTerm, iTerm2 and Konsole have Kitty's in part.
_BEST = {"iTerm2": "iterm2", "WezTerm": "iterm2", "Konsole": "sixel"}
# Inside tmux, Kitty's images are placed by special characters, which no others understand.
_WITH_PLACEHOLDERS = ("kitty", "ghostty")


@dataclass(frozen=True)
class Terminal:
    """A terminal, and what it can show."""

    protocol: str
    """One of `PROTOCOLS`."""
    tmux: bool
    """Whether the terminal is used through tmux, for which other sequences have to be wrapped."""
    columns: int
    lines: int
    cell: tuple[int, int]
    """Width and height of a character in pixels."""
    colours: ColorSystem
    """Colours of text."""


class _Answers(NamedTuple):
    """The answers of a terminal to queries."""

    name: str = ""
    kitty: bool = False
    sixel: bool = False
    cell: tuple[int, int] | None = None


def check_terminal(out: BinaryIO) -> None:
    """Check, without writing or querying anything, whether images can be shown on `out`.

    Raises:
        InputError: images cannot be shown on `out`, or the environment names an unknown protocol.
    """
    if not out.isatty():
        raise InputError("--preview shows pictures in a terminal, and standard output is none. Leave it out here.")
    if _wanted() is None and os.environ.get("TERM") in ("dumb", "unknown"):
        raise InputError(
            f"--preview needs colours, and this terminal says it has none (TERM={os.environ['TERM']}). "
            f"If it shows pictures all the same, say how: {VARIABLE}={'|'.join(PROTOCOLS)}"
        )


def examine(out: BinaryIO) -> Terminal:
    """Detect what the terminal `out` can show.

    Queries and answers go through the terminal itself, so standard input may be anything. A terminal that does not
    answer in time gets half blocks.

    Raises:
        InputError: as for `check_terminal`.
    """
    check_terminal(out)
    protocol, cell, tmux = _wanted(), _cell_of_window(out), "TMUX" in os.environ
    if protocol is None and tmux:
        protocol = _protocol_in_tmux()
    if protocol is None or (cell is None and protocol != "blocks"):
        answers = _ask(out)
        protocol = protocol or _protocol(answers)
        cell = cell or answers.cell
    columns, lines = _size(out)
    return Terminal(protocol, tmux, columns, lines, cell or _USUAL_CELL, _colours(tmux=tmux))


def _wanted() -> str | None:
    """Return the protocol that the environment names; None if it names none."""
    wanted = os.environ.get(VARIABLE) or None
    if wanted is not None and wanted not in PROTOCOLS:
        raise InputError(f"{VARIABLE} is {wanted!r}; it must be one of: {', '.join(PROTOCOLS)}")
    return wanted


def _protocol(answers: _Answers) -> str:
    known = _best(answers.name)
    if known is None and not answers.name and _iterm2_says_environment():
        known = "iterm2"
    if known == "sixel" and not answers.sixel:
        known = None
    return known or ("kitty" if answers.kitty else "sixel" if answers.sixel else "blocks")


def _best(terminal: str) -> str | None:
    return next((best for name, best in _BEST.items() if terminal.startswith(name)), None)


def _iterm2_says_environment() -> bool:
    """Return whether the environment is that of iTerm2, which does not give its name in old versions.

    The second variable is passed on by ssh too.
    """
    return os.environ.get("TERM_PROGRAM") == "iTerm.app" or os.environ.get("LC_TERMINAL") == "iTerm2"


def _protocol_in_tmux() -> str:
    """Return the protocol of the terminal behind tmux, as far as tmux passes it on.

    tmux is queried instead of the terminal, whose answers could come back as keystrokes at any time.
    """
    tmux = shutil.which("tmux")
    if tmux is None:
        return "blocks"
    question = "#{client_termtype}\t#{client_termfeatures}\t#{allow-passthrough}"
    command = [tmux, "display-message", "-p", "-t", os.environ.get("TMUX_PANE", ""), question]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=True)  # noqa: S603
        name, features, passes = done.stdout.rstrip("\n").split("\t")
    except (OSError, ValueError, subprocess.SubprocessError):
        return "blocks"
    wrapped = passes not in ("off", "0", "")
    if wrapped and name.lower().startswith(_WITH_PLACEHOLDERS):
        return "kitty"
    if "sixel" in features.split(","):
        return "sixel"  # tmux redraws such images when necessary, but not those that it only passes on
    return "iterm2" if wrapped and _best(name) == "iterm2" else "blocks"


def _ask(out: BinaryIO) -> _Answers:
    """Query the terminal; queries that it does not know stay without an answer."""
    answers = _converse(out, _KITTY_ASKED + _NAME_ASKED + _CELL_ASKED + _ATTRIBUTES_ASKED)
    name, cell, attributes = _NAME.search(answers), _CELL.search(answers), _ATTRIBUTES.search(answers)
    height, width = map(int, cell.groups()) if cell else (0, 0)
    return _Answers(
        name=name[1].decode("ascii", "replace") if name else "",
        kitty=bool(_KITTY.search(answers)),
        sixel=bool(attributes and _SIXEL_ATTRIBUTE in attributes[1].split(b";")),
        cell=(width, height) if width and height else None,
    )


def _converse(out: BinaryIO, questions: str) -> bytes:
    """Send `questions`, which end with `_ATTRIBUTES_ASKED`, and read until that is answered."""
    if not HAS_TERMIOS:
        return b""
    out.flush()
    try:
        terminal = os.open(os.ttyname(out.fileno()), os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return b""
    try:
        if os.tcgetpgrp(terminal) != os.getpgrp():
            return b""  # a process in the background that uses the terminal is stopped
        return _query(terminal, questions)
    except (OSError, termios.error):
        return b""
    finally:
        os.close(terminal)


def _query(terminal: int, questions: str) -> bytes:
    before = termios.tcgetattr(terminal)
    modes = termios.tcgetattr(terminal)
    # Ctrl-C arrives as a character and is handled after the answers, which would otherwise appear at the prompt.
    modes[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG)
    modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0
    answers = b""
    try:
        termios.tcsetattr(terminal, termios.TCSANOW, modes)
        # A terminal may show queries that it does not understand; the line is erased.
        os.write(terminal, f"{questions}\r\x1b[K".encode())
        end = time.monotonic() + _PATIENCE
        while not _ATTRIBUTES.search(answers):
            if not select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
                break
            piece = os.read(terminal, 4096)
            if not piece:
                break  # it was closed
            answers += piece
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
        if not _ATTRIBUTES.search(answers):
            termios.tcflush(terminal, termios.TCIFLUSH)
    if before[6][termios.VINTR] in answers:
        raise KeyboardInterrupt
    return answers


def _size(out: BinaryIO) -> tuple[int, int]:
    try:
        columns, lines = os.get_terminal_size(out.fileno())
    except OSError:
        columns, lines = 0, 0
    return columns or 80, lines or 24


def _cell_of_window(out: BinaryIO) -> tuple[int, int] | None:
    """Return width and height of a character in pixels, if the system knows them from the terminal."""
    if not HAS_TERMIOS:
        return None
    try:
        answer = fcntl.ioctl(out.fileno(), termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return None
    lines, columns, width, height = struct.unpack("4H", answer)
    if not (lines and columns and width >= columns and height >= lines):
        return None
    return width // columns, height // lines


def _colours(*, tmux: bool) -> ColorSystem:
    if tmux:
        return ColorSystem.TRUECOLOR  # tmux converts colours to those of the terminal behind it
    # --preview asks for colours; NO_COLOR concerns colours that were not asked for.
    console = Console(force_terminal=True, no_color=False)
    return COLOR_SYSTEMS[console.color_system or "standard"]
