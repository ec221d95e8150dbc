"""The real command with a terminal for its output, as wide as a test wants it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from warm import Warm


def on_a_terminal(
    *arguments: str | Path,
    cwd: Path,
    warm: Warm,
    env: Mapping[str, str] | None = None,
    columns: int = 80,
    stderr: bool = False,
) -> subprocess.CompletedProcess[bytes]:
    """Fork `clipsearch ARGUMENTS` with a pseudo-terminal as stdout; what comes back is what was written, unchanged.

    With `stderr`, that goes to the terminal, too.
    """
    leader, follower = _terminal(columns)
    own = {name: value for name, value in warm.environment.items() if name != "COLUMNS"}  # it would hide the width
    own |= env or {}
    with (
        tempfile.TemporaryFile() as said,
        Warm(warm.address, own) as forking,
        forking.begin(
            ["-m", "clipsearch", *arguments], cwd=cwd, stdout=follower, stderr=follower if stderr else said.fileno()
        ) as process,
    ):
        os.close(follower)
        out = b"".join(iter(lambda: _read(leader), b""))
        os.close(leader)
        said.seek(0)
        process.communicate()
        assert process.returncode is not None
        return subprocess.CompletedProcess(process.args, process.returncode, out, said.read())


def shown_on_a_terminal(program: Sequence[str | Path], cwd: Path, warm: Warm, columns: int = 80) -> bytes:
    """What a program that `warm` forks, and that must succeed, writes to a terminal as stderr."""
    leader, follower = _terminal(columns)
    env = {"TERM": "xterm", "COLUMNS": str(columns)}
    with warm.begin(program, cwd=cwd, env=env, stderr=follower) as process:
        os.close(follower)
        shown = b"".join(iter(lambda: _read(leader), b""))
    os.close(leader)
    assert process.returncode == 0, shown
    return shown


def _terminal(columns: int) -> tuple[int, int]:
    """Both ends of a pseudo-terminal."""
    import fcntl
    import pty
    import struct
    import termios

    leader, follower = pty.openpty()
    modes = termios.tcgetattr(follower)
    modes[1] &= ~termios.OPOST  # line ends stay as they are
    termios.tcsetattr(follower, termios.TCSANOW, modes)
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    return leader, follower


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # EIO: nobody writes any more
        return b""
