"""The real command with a terminal for its output, as wide as a test wants it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path


def on_a_terminal(
    *arguments: str | bytes | Path, cwd: Path, env: Mapping[str, str], columns: int = 80, stderr: bool = False
) -> subprocess.CompletedProcess[bytes]:
    """Run `clipsearch ARGUMENTS` with a pseudo-terminal as stdout; what comes back is what was written, unchanged.

    With `stderr`, that goes to the terminal, too.
    """
    import fcntl
    import pty
    import struct
    import termios

    leader, follower = pty.openpty()
    modes = termios.tcgetattr(follower)
    modes[1] &= ~termios.OPOST  # line ends stay as they are
    termios.tcsetattr(follower, termios.TCSANOW, modes)
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "clipsearch", *arguments]
    own = {name: value for name, value in env.items() if name != "COLUMNS"}  # it would hide the terminal's width
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(
            command, cwd=cwd, env=own, stdout=follower, stderr=follower if stderr else said
        ) as process:
            os.close(follower)
            out = b"".join(iter(lambda: _read(leader), b""))
        os.close(leader)
        said.seek(0)
        return subprocess.CompletedProcess(command, process.returncode, out, said.read())


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # EIO: nobody writes any more
        return b""
