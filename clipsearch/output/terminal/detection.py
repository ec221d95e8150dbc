"""What the terminal can show: asked of itself, of tmux and of the environment. Knows nothing of pictures and hits."""

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
"""How pictures can be sent; `blocks` are half blocks, which are text in two colours."""
VARIABLE = "CLIPSEARCH_PREVIEW"
"""The environment variable that names one of them, for terminals that are taken for what they are not."""

_PATIENCE = 2.0
"""Seconds; an answer that comes later than this would stand at the prompt. Enough for ssh around the world."""
_USUAL_CELL = (10, 20)
"""Of the VT340, which brought Sixel."""
_KITTY_ASKED = "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"
_NAME_ASKED = "\x1b[>q"
_CELL_ASKED = "\x1b[16t"
_ATTRIBUTES_ASKED = "\x1b[c"
"""Every terminal answers this, and in turn: after it, no other answer comes."""
_KITTY = re.compile(rb"\x1b_Gi=31;OK\x1b\\")
_NAME = re.compile(rb"\x1bP>\|([^\x1b]*)\x1b\\")
_CELL = re.compile(rb"\x1b\[6;(\d+);(\d+)t")
_ATTRIBUTES = re.compile(rb"\x1b\[\?([\d;]*)c")
_SIXEL_ATTRIBUTE = b"4"
# These speak several protocols, and this one best. WezTerm and iTerm2 have Kitty's in part, Konsole too.
_BEST = {"iTerm2": "iterm2", "WezTerm": "iterm2", "Konsole": "sixel"}
# Inside tmux, Kitty's pictures are placed by special characters, which no others understand.
_WITH_PLACEHOLDERS = ("kitty", "ghostty")


@dataclass(frozen=True)
class Terminal:
    """What is there to draw on."""

    protocol: str
    """One of `PROTOCOLS`."""
    tmux: bool
    """tmux stands between: what is not meant for it has to be wrapped."""
    columns: int
    lines: int
    cell: tuple[int, int]
    """Width and height of a character in pixels."""
    colours: ColorSystem
    """Of text."""


class _Answers(NamedTuple):
    """What a terminal says of itself."""

    name: str = ""
    kitty: bool = False
    sixel: bool = False
    cell: tuple[int, int] | None = None


def check_terminal(out: BinaryIO) -> None:
    """Complain early: nothing is asked, nothing is written.

    Raises:
        InputError: pictures cannot be shown on `out`, or the environment names an unknown protocol.
    """
    if not out.isatty():
        raise InputError("--preview shows pictures in a terminal, and standard output is none. Leave it out here.")
    if _wanted() is None and os.environ.get("TERM") in ("dumb", "unknown"):
        raise InputError(
            f"--preview needs colours, and this terminal says it has none (TERM={os.environ['TERM']}). "
            f"If it shows pictures all the same, say how: {VARIABLE}={'|'.join(PROTOCOLS)}"
        )


def examine(out: BinaryIO) -> Terminal:
    """Find out what the terminal `out` can show.

    It is asked, and its answers are read, from the terminal itself, whatever standard input is. One that never
    answers is waited for a moment and gets half blocks.

    Raises:
        InputError: as `check_terminal`.
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
    """The protocol that the environment names."""
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
    """Old ones do not tell their name; the second variable comes through ssh too."""
    return os.environ.get("TERM_PROGRAM") == "iTerm.app" or os.environ.get("LC_TERMINAL") == "iTerm2"


def _protocol_in_tmux() -> str:
    """Of the terminal behind tmux, as far as tmux lets it through.

    tmux is asked and not the terminal: that one's answers would come back as keystrokes, at any time.
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
        return "sixel"  # tmux draws such pictures anew when it must; those that go past it are gone then
    return "iterm2" if wrapped and _best(name) == "iterm2" else "blocks"


def _ask(out: BinaryIO) -> _Answers:
    """The terminal's answers; those that it does not know are missing."""
    heard = _converse(out, _KITTY_ASKED + _NAME_ASKED + _CELL_ASKED + _ATTRIBUTES_ASKED)
    name, cell, attributes = _NAME.search(heard), _CELL.search(heard), _ATTRIBUTES.search(heard)
    height, width = map(int, cell.groups()) if cell else (0, 0)
    return _Answers(
        name=name[1].decode("ascii", "replace") if name else "",
        kitty=bool(_KITTY.search(heard)),
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
            return b""  # in the background: who touches the terminal there is stopped
        return _listen(terminal, questions)
    except (OSError, termios.error):
        return b""
    finally:
        os.close(terminal)


def _listen(terminal: int, questions: str) -> bytes:
    before = termios.tcgetattr(terminal)
    modes = termios.tcgetattr(terminal)
    # Ctrl-C comes as a character and has to wait for the answers, or they would stand at the prompt.
    modes[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG)
    modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0
    heard = b""
    try:
        termios.tcsetattr(terminal, termios.TCSANOW, modes)
        # What a terminal shows instead of understanding it is wiped away.
        os.write(terminal, f"{questions}\r\x1b[K".encode())
        end = time.monotonic() + _PATIENCE
        while not _ATTRIBUTES.search(heard):
            if not select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
                break
            piece = os.read(terminal, 4096)
            if not piece:
                break  # it was closed
            heard += piece
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
        if not _ATTRIBUTES.search(heard):
            termios.tcflush(terminal, termios.TCIFLUSH)
    if before[6][termios.VINTR] in heard:
        raise KeyboardInterrupt
    return heard


def _size(out: BinaryIO) -> tuple[int, int]:
    try:
        columns, lines = os.get_terminal_size(out.fileno())
    except OSError:
        columns, lines = 0, 0
    return columns or 80, lines or 24


def _cell_of_window(out: BinaryIO) -> tuple[int, int] | None:
    """Width and height of a character in pixels, if the terminal has told the system."""
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
        return ColorSystem.TRUECOLOR  # which tmux turns into what the terminal behind it has
    # Who types --preview wants colours: NO_COLOR is about those that nobody asked for.
    console = Console(force_terminal=True, no_color=False)
    return COLOR_SYSTEMS[console.color_system or "standard"]
