"""The second decoder, for pictures of rare kinds: imagecodecs and tifffile, at work in a process of their own.

The process is started when the first such picture comes, answers one after the other, and is started again after it
crashed. It has a limit to its time and its memory, and ends with the process that started it. Knows nothing of formats
but their names.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from typing import Any

from PIL import Image

from clipsearch.errors import UnreadableImageError
from clipsearch.images import second_decoder_worker
from clipsearch.images.extras import install_command, is_installed
from clipsearch.images.layouts import TRUNCATED
from clipsearch.images.limits import check_size
from clipsearch.images.rare import Rare
from clipsearch.system.cores import available

_SECONDS, _PIXELS_A_SECOND = 30, 1_000_000
"""How long a picture may take: so many seconds, and more for large ones. Usual are 20 million pixels a second."""
_BYTES, _BYTES_PER_THREAD, _BYTES_PER_PIXEL = 2 << 30, 128 << 20, 48
"""How much memory the process may have: with what its libraries and threads reserve and never touch."""
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from clipsearch.images.second_decoder_worker import main; main()"
)


def decode(content: bytes, rare: Rare, limit: int) -> Image.Image:
    """The picture as it is stored, in eight bits: grey, RGB, CMYK or CIELAB, maybe with alpha.

    Raises:
        UnreadableImageError: the packages for it are not installed, the content is broken or cut off, or has more
            than `limit` pixels.
        MemoryError: there is not enough memory for it.
    """
    if not is_installed(rare.extra):
        command = install_command(rare.extra)
        raise UnreadableImageError(f"{rare.kind}: read once you install the extra: {command}")
    threads = available()
    header, data = _process.ask(
        {
            "codec": rare.codec,
            "bits": rare.bits,
            "channels": rare.channels,
            "pixels": limit,
            "threads": threads,
            "seconds": _SECONDS + rare.width * rare.height / _PIXELS_A_SECOND,
            "memory": _BYTES + threads * _BYTES_PER_THREAD + limit * _BYTES_PER_PIXEL,
        },
        content,
    )
    problem = header.get("problem")
    if problem is None:
        return Image.frombytes(header["mode"], tuple(header["size"]), data)
    if problem == second_decoder_worker.NO_MEMORY:
        raise MemoryError
    if problem == second_decoder_worker.TOO_LARGE:
        width, height = header["size"]
        check_size(width, height, limit)
    if problem == second_decoder_worker.TRUNCATED:
        raise UnreadableImageError(TRUNCATED)
    what = "unsupported" if problem == second_decoder_worker.UNSUPPORTED else "broken image"
    raise UnreadableImageError(f"{what}: {rare.kind}")


class _Process:
    """The one process, and who talks to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        """The answer, and the pixels with it; one with a `problem` if the process does not live to give it."""
        with self._lock:
            try:
                return self._asked(self._running() or self._start(), request, content)
            except (OSError, EOFError):
                self.stop()
            except BaseException:  # Ctrl-C, say: the answer that is still to come would be taken for the next one's
                self.stop()
                raise
            return {"problem": "it crashed"}, b""

    def _running(self) -> subprocess.Popen[bytes] | None:
        if self._owner != os.getpid():  # a copy of the process that started it must not talk to it
            self._child, self._owner = None, os.getpid()
        if self._child is not None and self._child.poll() is not None:  # killed from outside
            self.stop()
        return self._child

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _START, json.dumps(sys.path)]
        # In a session of its own: Ctrl-C in a terminal goes to all programs of a session, and this one must not die of
        # it in the middle of a picture that is then taken for a broken one.
        self._child = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self._child

    @staticmethod
    def _asked(child: subprocess.Popen[bytes], request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        if child.stdin is None or child.stdout is None:
            raise EOFError
        child.stdin.write(json.dumps(request | {"length": len(content)}).encode() + b"\n")
        child.stdin.write(content)
        child.stdin.flush()
        line = child.stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        header: dict[str, Any] = json.loads(line)
        data = child.stdout.read(header.get("length", 0))
        if len(data) < header.get("length", 0):
            raise EOFError
        return header, data

    def stop(self) -> None:
        """End the process, if there is one."""
        child = self._child
        if child is not None and self._owner == os.getpid():
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        self._child = None


_process = _Process()
atexit.register(_process.stop)
